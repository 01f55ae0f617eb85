//! The members of an epoch, as replicas name them to clients.

use crate::address::is_host;
use crate::id::{Epoch, REPLICAS_MAX};
use crate::message::{Member, Welcome};

/// The most bytes of a member's host; a name of the domain name system has no more.
pub const HOST_BYTES_MAX: usize = 255;

/// The members of an epoch, by their places. A view has 1 to 9 members, and each has an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    epoch: Epoch,
    members: Vec<Member>,
}

/// A list that cannot be that of an epoch's members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadView {
    /// An epoch has 1 to 9 members.
    #[error("the other side names {0} members, and 1 to {REPLICAS_MAX} are possible")]
    Count(usize),
    /// A member has no address.
    #[error("member {0} in the list of the other side has no possible address")]
    Address(usize),
}

impl View {
    /// The members of an epoch, in the order of their places.
    ///
    /// # Errors
    ///
    /// [`BadView`] if they cannot be the members of an epoch.
    pub fn new(epoch: Epoch, members: Vec<Member>) -> Result<View, BadView> {
        if !(1..=REPLICAS_MAX).contains(&members.len()) {
            return Err(BadView::Count(members.len()));
        }
        let is_possible = |member: &Member| {
            member.host.len() <= HOST_BYTES_MAX && is_host(&member.host) && member.client_base > 0
        };
        match members.iter().position(|member| !is_possible(member)) {
            Some(place) => Err(BadView::Address(place)),
            None => Ok(View { epoch, members }),
        }
    }

    /// The members that a welcome names.
    ///
    /// # Errors
    ///
    /// [`BadView`] as for [`View::new`].
    pub fn of(welcome: &Welcome) -> Result<View, BadView> {
        View::new(welcome.epoch, welcome.members.clone())
    }

    /// The epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The members, by their places.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The number of members.
    pub fn replicas(&self) -> u8 {
        self.members.len() as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Refusal;

    fn member(host: &str, client_base: u16) -> Member {
        Member { host: host.into(), client_base }
    }

    #[test]
    fn only_a_list_of_possible_members_is_a_view() {
        let good = member("10.0.0.1", 7400);
        let view = |members: &[Member]| View::new(Epoch(2), members.to_vec());
        assert_eq!(view(&vec![good.clone(); 9]).unwrap().replicas(), 9);
        assert_eq!(view(&[]), Err(BadView::Count(0)));
        assert_eq!(view(&vec![good.clone(); 10]), Err(BadView::Count(10)));
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        let hosts = ["", "db1\nreplica 0 has failed", "http://db1", &long];
        for bad in hosts.map(|host| member(host, 7400)).into_iter().chain([member("db1", 0)]) {
            assert_eq!(view(&[good.clone(), bad]), Err(BadView::Address(1)));
        }
    }

    #[test]
    fn a_refusal_says_where_the_members_are() {
        let members = vec![member("::1", 7400), member("db1", 7500)];
        let text = Refusal::NotAMember { epoch: Epoch(3), members }.to_string();
        assert!(text.contains("epoch 3, whose members are [::1]:7400, db1:7500; connect to one"), "{text}");
        let many = vec![member("db1", 7400); 1000];
        assert!(Refusal::NotAMember { epoch: Epoch(3), members: many }.to_string().len() < 300);
    }
}
