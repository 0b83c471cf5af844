//! What the types look like on the wire, and in the `OpenAPI` document.
#![allow(missing_docs, clippy::unwrap_used)]

use dormouse_api_types::{
    Abilities, Check, CheckStatus, CreateMachine, DepthWord, Event, EventKind, EventsQuery, Failure, Held,
    Hold, HoldRequest, Interface, LastWake, MachineDetail, MachineState, MachineSummary, Outcome, Problem,
    ProblemKind, ReleaseRequest, Report, Signal, SleepRequest, StartRequest, StopRequest, Time, VersionInfo,
    Wait, WakeRequest, Why,
};
use serde_json::{Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(components(schemas(
    Abilities,
    Check,
    CheckStatus,
    CreateMachine,
    DepthWord,
    Event,
    EventKind,
    Failure,
    Held,
    Hold,
    HoldRequest,
    Interface,
    LastWake,
    MachineDetail,
    MachineState,
    MachineSummary,
    Outcome,
    Problem,
    ProblemKind,
    ReleaseRequest,
    Report,
    Signal,
    SleepRequest,
    StartRequest,
    StopRequest,
    Time,
    VersionInfo,
    WakeRequest,
    Why,
)))]
struct Document;

fn references(json: &Value, found: &mut Vec<String>) {
    match json {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str).map(Into::into));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    let document = serde_json::to_value(Document::openapi()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.iter().any(|reference| reference.ends_with("/Depth")), "{found:?}");
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
}

#[test]
fn the_document_says_what_is_written() {
    let document = serde_json::to_value(Document::openapi()).unwrap();
    let schema = |name: &str| document.pointer(&format!("/components/schemas/{name}")).cloned().unwrap();
    assert_eq!(schema("Depth")["enum"], json!(["paused", "pmsuspended", "saved", "off"]));
    assert_eq!(schema("Time")["format"], "date-time");
    assert_eq!(schema("MachineState")["enum"][0], json!(MachineState::Stopped));
    assert_eq!(schema("ProblemKind")["enum"][0], json!(ProblemKind::NotFound));
    assert_eq!(schema("Event")["properties"]["machine"]["type"], json!(["string", "null"]));
}

fn detail() -> Value {
    json!({
        "name": "web", "state": "asleep", "depth": "saved", "since": "2026-11-21T07:19:51.042Z",
        "memory_bytes": 268_435_456, "resident_bytes": 0, "holds": 0, "addresses": ["10.9.0.2"],
        "toml": "name = \"web\"\n", "base": "/srv", "disk_bytes": 4096,
        "interfaces": [{"mac": "52:54:00:00:00:02", "bridge": "br0", "addresses": ["10.9.0.2"]}],
        "hold_list": [], "abilities": {"depths": ["paused", "saved"], "obstacles": [], "lazy_memory": true},
    })
}

#[test]
fn a_machine_is_one_flat_object() {
    let machine: MachineDetail = serde_json::from_value(detail()).unwrap();
    assert_eq!(machine.summary.state, MachineState::Asleep);
    assert_eq!(serde_json::to_value(machine).unwrap(), detail());
}

#[test]
fn a_client_reads_what_a_newer_daemon_adds() {
    let mut machine = detail();
    machine["state"] = "hibernating-elsewhere".into();
    machine["node"] = "host-2".into();
    assert_eq!(
        serde_json::from_value::<MachineDetail>(machine).unwrap().summary.state,
        MachineState::Unknown
    );
}

#[test]
fn a_request_is_refused_for_a_key_that_nobody_knows() {
    assert!(serde_json::from_value::<StartRequest>(json!({"cold": true})).unwrap().cold);
    assert!(serde_json::from_value::<StartRequest>(json!({"colt": true})).is_err());
    assert!(serde_json::from_value::<WakeRequest>(json!({"now": true})).is_err());
    assert!(serde_json::from_value::<SleepRequest>(json!({"depth": "deep"})).is_err());
    assert!(serde_json::from_value::<EventsQuery>(json!({"folow": true})).is_err());
}

#[test]
fn an_empty_request_is_the_default() {
    assert_eq!(serde_json::from_str::<StopRequest>("{}").unwrap(), StopRequest::default());
    assert_eq!(serde_json::from_str::<HoldRequest>("{}").unwrap(), HoldRequest::default());
    assert!(serde_json::from_str::<Wait>("{}").unwrap().wait);
}
