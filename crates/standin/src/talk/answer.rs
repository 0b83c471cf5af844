//! Answers to HTTP requests (RFC 9110).

use dormouse_types::MachineName;

use super::{
    http::{Fault, Request},
    page,
};

/// Seconds after which a client is to come again. A wake takes a fraction of one; while a machine
/// boots the page comes again, and again.
pub(super) const RETRY: u32 = 1;

/// The answer to a request for a machine that is asleep, and that `wakes` at it or does not.
///
/// Never one by which a client could think that its request was carried out: 503 says to send it
/// again (RFC 9110 §15.6.4).
pub(super) fn unavailable(request: &Request, name: &MachineName, wakes: bool) -> Vec<u8> {
    let repeats = matches!(request.method.as_str(), "GET" | "HEAD");
    let (kind, body) = if request.html {
        ("text/html", page::html(name, wakes, repeats))
    } else {
        ("text/plain", page::plain(name, wakes))
    };
    let retry = if wakes { format!("Retry-After: {RETRY}\r\n") } else { String::new() };
    message("503 Service Unavailable", &retry, kind, &body, request.method == "HEAD")
}

/// The answer to what is no request.
pub(super) fn fault(fault: Fault) -> Vec<u8> {
    match fault {
        Fault::Bad => error("400 Bad Request", "This is not an HTTP/1 request."),
        Fault::Long => error("431 Request Header Fields Too Large", "This request's head is too long."),
    }
}

/// The answer to a request that does not come to its end.
pub(super) fn timeout() -> Vec<u8> {
    error("408 Request Timeout", "The request's head did not come in time.")
}

fn error(status: &str, text: &str) -> Vec<u8> {
    message(status, "", "text/plain", &format!("{text}\n"), false)
}

/// A whole message. One to HEAD has the fields that GET would get and no content (RFC 9110 §9.3.2).
fn message(status: &str, fields: &str, kind: &str, body: &str, head_only: bool) -> Vec<u8> {
    let len = body.len();
    let body = if head_only { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\n{fields}Content-Type: {kind}; charset=utf-8\r\nContent-Length: {len}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, html: bool, wakes: bool) -> (String, String) {
        let request = Request { method: method.into(), target: "/".into(), html };
        let text = String::from_utf8(unavailable(&request, &"web".parse().unwrap(), wakes)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.into(), body.into())
    }

    #[test]
    fn browsers_get_the_page_and_others_a_line() {
        let (head, body) = answer("GET", true, true);
        assert_eq!(
            head,
            format!(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Type: text/html; charset=utf-8\r\n\
                 Content-Length: {}\r\nCache-Control: no-store\r\nConnection: close",
                body.len()
            )
        );
        assert!(body.starts_with("<!doctype html>") && body.contains("http-equiv=\"refresh\""));
        let (head, body) = answer("GET", false, true);
        assert!(head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{head}");
        assert_eq!(body, "web is waking up. Try again in a moment.\n");
    }

    #[test]
    fn head_is_told_of_the_content_and_gets_none() {
        let (get, body) = answer("GET", false, true);
        assert_eq!(answer("HEAD", false, true), (get, String::new()));
        assert!(!body.is_empty());
    }

    #[test]
    fn what_cannot_be_repeated_is_not_repeated_by_the_page() {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let (head, body) = answer(method, true, true);
            assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After"), "{head}");
            assert!(!body.contains("http-equiv=\"refresh\"") && body.contains("not delivered"), "{body}");
        }
    }

    #[test]
    fn nothing_is_promised_where_nothing_wakes() {
        let (head, body) = answer("GET", true, false);
        assert!(!head.contains("Retry-After") && !body.contains("refresh"), "{head} {body}");
        assert_eq!(answer("GET", false, false).1, "web is asleep.\n");
    }

    #[test]
    fn faults_have_the_status_of_their_kind() {
        for (bytes, status) in
            [(fault(Fault::Bad), "400 B"), (fault(Fault::Long), "431 R"), (timeout(), "408 R")]
        {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")) && text.ends_with(".\n"), "{text}");
        }
    }
}
