//! Heads of HTTP/1 requests (RFC 9112), as far as answering them needs it.

use httparse::{EMPTY_HEADER, Error, Status};

/// The longest head that is read, in octets.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// The most fields in it.
const MAX_FIELDS: usize = 64;
/// The longest target that is told, in characters.
const MAX_TARGET: usize = 64;

/// What is known of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The method.
    pub(super) method: String,
    /// The target, shortened, in printable characters of ASCII.
    pub(super) target: String,
    /// Its client takes HTML: a browser that shows a page.
    pub(super) html: bool,
}

/// What is wrong with what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no head of an HTTP/1 request.
    Bad,
    /// It is too long.
    Long,
}

/// Reads a request's head; `None` while its end has not come.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Request>, Fault> {
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => Ok(Some(Request {
            method: shorten(request.method.unwrap_or_default()),
            target: shorten(request.path.unwrap_or_default()),
            html: request.headers.iter().any(takes_html),
        })),
        Ok(Status::Partial) if bytes.len() >= MAX_HEAD => Err(Fault::Long),
        Ok(Status::Partial) => Ok(None),
        Err(Error::TooManyHeaders) => Err(Fault::Long),
        Err(_) => Err(Fault::Bad),
    }
}

/// Is it an `Accept` that names HTML (RFC 9110 §12.5.1)? Browsers name it when they show what comes,
/// and not when they want a picture or a script; other clients hardly ever do.
fn takes_html(field: &httparse::Header<'_>) -> bool {
    let accept = field.name.eq_ignore_ascii_case("accept");
    let mut ranges = field.value.split(|octet| *octet == b',');
    accept && ranges.any(|range| range.split(|octet| *octet == b';').next().is_some_and(is_html))
}

fn is_html(range: &[u8]) -> bool {
    range.trim_ascii().eq_ignore_ascii_case(b"text/html")
}

fn shorten(text: &str) -> String {
    let printable = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    let mut short: String = text.chars().take(MAX_TARGET).map(printable).collect();
    if text.chars().nth(MAX_TARGET).is_some() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(method: &str, target: &str, html: bool) -> Result<Option<Request>, Fault> {
        Ok(Some(Request { method: method.into(), target: target.into(), html }))
    }

    #[test]
    fn reads_what_clients_send() {
        let firefox = "GET /wiki?a=1 HTTP/1.1\r\nHost: web\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
            Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\nAccept-Language: en\r\nConnection: keep-alive\r\n\r\n";
        assert_eq!(parse(firefox.as_bytes()), request("GET", "/wiki?a=1", true));
        let curl = "GET / HTTP/1.1\r\nHost: 10.9.0.2\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
        assert_eq!(parse(curl.as_bytes()), request("GET", "/", false));
        let picture = "GET /favicon.ico HTTP/1.1\r\nHost: web\r\nAccept: image/avif,image/webp,*/*\r\n\r\n";
        assert_eq!(parse(picture.as_bytes()), request("GET", "/favicon.ico", false));
        let odd = "POST /form HTTP/1.0\naccept: application/json\nACCEPT: Text/HTML ;q=0.5\n\nbody";
        assert_eq!(parse(odd.as_bytes()), request("POST", "/form", true));
        assert_eq!(
            parse(b"OPTIONS * HTTP/1.1\r\nAccept: text/htmlx\r\n\r\n"),
            request("OPTIONS", "*", false)
        );
    }

    #[test]
    fn waits_for_the_end_of_a_head() {
        let head = b"HEAD / HTTP/1.1\r\nHost: web\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(parse(&head[..end]), Ok(None), "{end}");
        }
        assert_eq!(parse(head), request("HEAD", "/", false));
    }

    #[test]
    fn refuses_what_is_no_request() {
        let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
        for bytes in
            [&hello[..], b"SSH-2.0-OpenSSH_9.2p1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /\r\n"]
        {
            assert_eq!(parse(bytes), Err(Fault::Bad), "{bytes:x?}");
        }
        let fields = "A: b\r\n".repeat(MAX_FIELDS + 1);
        assert_eq!(parse(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()), Err(Fault::Long));
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(parse(&long.as_bytes()[..MAX_HEAD]), Err(Fault::Long));
    }

    #[test]
    fn long_targets_are_shortened() {
        let head = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100));
        let read = parse(head.as_bytes()).unwrap().unwrap();
        assert_eq!(read.target, format!("/{}...", "x".repeat(MAX_TARGET - 1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(bytes in prop::collection::vec(any::<u8>(), 0..200), request: bool) {
            let mut head = if request { b"GET / HTTP/1.1\r\n".to_vec() } else { Vec::new() };
            head.extend(bytes);
            if let Ok(Some(read)) = parse(&head) {
                prop_assert!(read.target.len() <= MAX_TARGET + 3 && read.target.bytes().all(|b| b.is_ascii_graphic()));
            }
        }
    }
}
