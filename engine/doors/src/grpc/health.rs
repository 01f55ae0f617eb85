//! `grpc.health.v1`: whether the replica takes requests, as `/readyz` says it by HTTP.

use super::proto::decision_service_server::SERVICE_NAME;
use crate::health::is_ready;
use crate::limits::HEALTH_LOOK_EVERY;
use crate::router::House;
use std::sync::{Arc, Weak};
use std::time::Instant;
use tokio::time::timeout;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

/// The names under which health is told: the whole replica, and its service.
const NAMES: [&str; 2] = ["", SERVICE_NAME];

/// The service, which is told how things stand for as long as the doors are open.
pub(super) fn service(house: &Arc<House>) -> HealthServer<impl Health> {
    let (reporter, service) = health_reporter();
    tokio::spawn(report(Arc::downgrade(house), reporter));
    service
}

async fn report(house: Weak<House>, mut reporter: HealthReporter) {
    let mut last = None;
    while let Some(house) = house.upgrade() {
        let mut stopped = house.stopped.clone();
        let now = is_ready(&house.shown.look(), Instant::now()) && !*stopped.borrow();
        drop(house);
        if last.replace(now) != Some(now) {
            let status = if now { ServingStatus::Serving } else { ServingStatus::NotServing };
            for name in NAMES {
                reporter.set_service_status(name, status).await;
            }
        }
        if *stopped.borrow() {
            break;
        }
        let _ = timeout(HEALTH_LOOK_EVERY, stopped.wait_for(|stopped| *stopped)).await;
    }
    // Those who watch would hold up the end of their connections.
    for name in NAMES {
        reporter.clear_service_status(name).await;
    }
}
