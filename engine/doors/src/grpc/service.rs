//! The calls that are answered.

use super::body::Meter;
use super::proto::decision_service_server::{DecisionService, DecisionServiceServer};
use super::proto::{self, Deleted};
use super::{DESCRIPTORS, deadline, health, patience, proposals, watch, words};
use crate::decisions::missing;
use crate::limits::{ANSWER_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::problem::Refusal;
use crate::proposal::{Order, check_key};
use crate::router::House;
use futures_lite::stream::Boxed;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// The services of the door.
pub(crate) fn routes(house: &Arc<House>) -> Routes {
    let decisions = DecisionServiceServer::new(Decisions(house.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the build has made the descriptors");
    Routes::new(decisions).add_service(reflection).add_service(health::service(house)).prepare()
}

/// The service of decisions.
struct Decisions(Arc<House>);

/// Decides what a sender proposes. The caller holds the place and the room.
pub(super) async fn propose(
    house: &House,
    proposal: Option<proto::Proposal>,
    deadline: Duration,
) -> Result<proto::Outcome, Refusal> {
    let order: Order = words::order(proposal)?;
    let request_key = order.request_key().map(ToOwned::to_owned);
    let done = house.cluster.submit(order, deadline).await?;
    Ok(words::outcome(done, request_key))
}

#[tonic::async_trait]
impl DecisionService for Decisions {
    type ProposeStreamStream = Boxed<Result<proto::ProposeStreamResponse, Status>>;
    type WatchStream = Boxed<Result<proto::WatchResponse, Status>>;

    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeResponse>, Status> {
        let deadline = deadline(request.metadata())?;
        let _place = self.0.enter()?;
        // The room of the message is the meter's, which the extensions hold until the answer is there.
        let (_, _extensions, message) = request.into_parts();
        let outcome = Some(propose(&self.0, message.proposal, deadline).await?);
        Ok(Response::new(proto::ProposeResponse { outcome }))
    }

    async fn propose_stream(
        &self,
        request: Request<Streaming<proto::ProposeStreamRequest>>,
    ) -> Result<Response<Self::ProposeStreamStream>, Status> {
        let patience = patience(request.metadata())?;
        let place = self.0.enter_proposals()?;
        let (_, extensions, messages) = request.into_parts();
        let meter = extensions.get::<Arc<Meter>>().expect("each call is metered").clone();
        Ok(Response::new(proposals::answers(self.0.clone(), messages, meter, patience, place)))
    }

    async fn get_decision(
        &self,
        request: Request<proto::GetDecisionRequest>,
    ) -> Result<Response<proto::GetDecisionResponse>, Status> {
        let deadline = deadline(request.metadata())?;
        let key = request.into_inner().key;
        check_key(&key)?;
        let _place = self.0.enter()?;
        let found = self.0.cluster.read(key.clone(), deadline).await?.ok_or_else(missing)?;
        let (command_id, key_seq, value) = (found.id.to_string(), found.key_seq, found.value.into());
        let decision = Some(proto::Decision { key, key_seq, command_id, value });
        Ok(Response::new(proto::GetDecisionResponse { decision }))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let deadline = deadline(request.metadata())?;
        let proto::DeleteRequest { key, name } = request.into_inner();
        check_key(&key)?;
        let name = words::name_of_delete(name)?;
        let _place = self.0.enter()?;
        let deleted = self.0.cluster.delete(key.clone(), name, deadline).await?.ok_or_else(missing)?;
        let (command_id, key_seq) = (deleted.id.to_string(), deleted.key_seq);
        let deleted = Some(Deleted { key, key_seq, command_id });
        Ok(Response::new(proto::DeleteResponse { deleted }))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let patience = patience(request.metadata())?;
        Ok(Response::new(watch::events(&self.0, request.into_inner(), patience)?))
    }
}
