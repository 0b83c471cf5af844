//! Where everything is. Constants are templates as axum and `OpenAPI` write them.

/// `GET`: list of [`MachineSummary`](crate::MachineSummary);
/// `POST` [`CreateMachine`](crate::CreateMachine): 201 and [`MachineDetail`](crate::MachineDetail).
pub const MACHINES: &str = "/v1/machines";
/// `GET`: [`MachineDetail`](crate::MachineDetail); `DELETE`: 204.
pub const MACHINE: &str = "/v1/machines/{name}";
/// `POST` [`StartRequest`](crate::StartRequest): [`Outcome`](crate::Outcome).
pub const START: &str = "/v1/machines/{name}/start";
/// `POST` [`StopRequest`](crate::StopRequest): [`Outcome`](crate::Outcome).
pub const STOP: &str = "/v1/machines/{name}/stop";
/// `POST` [`SleepRequest`](crate::SleepRequest): [`Outcome`](crate::Outcome).
pub const SLEEP: &str = "/v1/machines/{name}/sleep";
/// `POST` [`WakeRequest`](crate::WakeRequest): [`Outcome`](crate::Outcome).
pub const WAKE: &str = "/v1/machines/{name}/wake";
/// `POST` [`HoldRequest`](crate::HoldRequest): [`Outcome`](crate::Outcome).
pub const HOLD: &str = "/v1/machines/{name}/hold";
/// `POST` [`HoldWhileRequest`](crate::HoldWhileRequest): [`Outcome`](crate::Outcome) as [`NDJSON`], and no
/// end: the hold lasts as long as the answer is read.
pub const HOLD_WHILE: &str = "/v1/machines/{name}/hold-while";
/// `POST` [`ReleaseRequest`](crate::ReleaseRequest): [`Outcome`](crate::Outcome).
pub const RELEASE: &str = "/v1/machines/{name}/release";
/// `GET`: [`Why`](crate::Why).
pub const WHY: &str = "/v1/machines/{name}/why";
/// `POST` [`WakeTestRequest`](crate::WakeTestRequest): [`WakeTest`](crate::WakeTest).
pub const WAKE_TEST: &str = "/v1/machines/{name}/wake-test";
/// `GET` with [`EventsQuery`](crate::EventsQuery): [`Event`](crate::Event)s as [`NDJSON`].
pub const EVENTS: &str = "/v1/events";
/// `GET` with [`ImportQuery`](crate::ImportQuery), or `POST` [`ImportRequest`](crate::ImportRequest):
/// [`ImportReport`](crate::ImportReport).
pub const IMPORT_LIBVIRT: &str = "/v1/import/libvirt";
/// `GET`: [`Report`](crate::Report) of one machine.
pub const MACHINE_DOCTOR: &str = "/v1/machines/{name}/doctor";
/// `GET` with [`UsageQuery`](crate::UsageQuery): [`UsageReport`](crate::UsageReport).
pub const USAGE: &str = "/v1/usage";
/// `GET`: [`Report`](crate::Report).
pub const DOCTOR: &str = "/v1/doctor";
/// `GET`: [`VersionInfo`](crate::VersionInfo).
pub const VERSION: &str = "/v1/version";
/// `GET`: the `OpenAPI` document.
pub const OPENAPI: &str = "/v1/openapi.json";

/// Media type of a stream of JSON texts, one a line.
pub const NDJSON: &str = "application/x-ndjson";
/// Media type of [`Problem`](crate::Problem) (RFC 9457, section 3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// The path of `template` for one machine.
///
/// A machine's name needs no escaping: it is made of characters that a path segment allows.
#[must_use]
pub fn of(template: &str, name: &dormouse_types::MachineName) -> String {
    template.replace("{name}", name.as_str())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fills_in_the_name() {
        assert_eq!(super::of(super::WHY, &"web".parse().unwrap()), "/v1/machines/web/why");
    }
}
