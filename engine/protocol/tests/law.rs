//! A test per rule of the law, named by the rule. One core against a test that plays everybody
//! else where the rule speaks of messages, a small cluster where it speaks of outcomes.

mod support;

#[path = "law/admission.rs"]
mod admission;
#[path = "law/commit.rs"]
mod commit;
#[path = "law/durable.rs"]
mod durable;
#[path = "law/execute.rs"]
mod execute;
#[path = "law/forget.rs"]
mod forget;
#[path = "law/hung.rs"]
mod hung;
#[path = "law/learn.rs"]
mod learn;
#[path = "law/limits.rs"]
mod limits;
#[cfg(feature = "mutants")]
#[path = "law/mutants.rs"]
mod mutants;
#[path = "law/publish.rs"]
mod publish;
#[path = "law/recover.rs"]
mod recover;
#[path = "law/resend.rs"]
mod resend;
#[path = "law/seal.rs"]
mod seal;
#[path = "law/sessions.rs"]
mod sessions;
#[path = "law/told.rs"]
mod told;
#[path = "law/transfer.rs"]
mod transfer;
#[path = "law/tuning.rs"]
mod tuning;
#[path = "law/validate.rs"]
mod validate;
