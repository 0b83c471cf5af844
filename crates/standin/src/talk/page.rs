//! The page that a browser shows while a machine wakes, and its one line for other clients.

use dormouse_types::MachineName;

use super::answer::RETRY;

/// The look: nothing is loaded from anywhere, light or dark as the reader likes it.
const STYLE: &str = "\
:root{color-scheme:light dark;--back:#f6f5f2;--text:#22231f;--soft:#6c6d66;--dot:#b3742a}\
@media(prefers-color-scheme:dark){:root{--back:#1c1d1a;--text:#ecebe6;--soft:#9b9c94;--dot:#e0a458}}\
html{height:100%}\
body{min-height:100%;margin:0;display:grid;place-items:center;background:var(--back);color:var(--text);\
font:1.1rem/1.5 system-ui,sans-serif;text-align:center}\
main{padding:2rem}\
h1{margin:1.2rem 0 .3rem;font-size:1.7rem;font-weight:600;overflow-wrap:anywhere}\
p{margin:0;color:var(--soft)}\
i{display:inline-block;width:1.1rem;height:1.1rem;border-radius:50%;background:var(--dot);\
animation:breathe 1s ease-in-out infinite}\
@keyframes breathe{50%{transform:scale(.6);opacity:.5}}\
@media(prefers-reduced-motion:reduce){i{animation:none}}";

/// The page. It loads itself again if that only `repeats` the request; a form that was sent would
/// be lost by it, so there the reader is told.
pub(super) fn html(name: &MachineName, wakes: bool, repeats: bool) -> String {
    let name = escape(name.as_str());
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"{RETRY}\">");
    let (refresh, title, text) = match (wakes, repeats) {
        (true, true) => (refresh.as_str(), "is waking up", "This page reloads by itself."),
        (true, false) => {
            ("", "is waking up", "What you sent was not delivered. Reload this page to send it again.")
        }
        (false, true) => ("", "is asleep", "Come back later."),
        (false, false) => ("", "is asleep", "What you sent was not delivered."),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"robots\" content=\"noindex\">\n{refresh}\n\
         <title>{name} {title}</title>\n<style>{STYLE}</style>\n\
         <main><i></i><h1>{name} {title}</h1><p>{text}</p></main>\n"
    )
}

/// The same in one line.
pub(super) fn plain(name: &MachineName, wakes: bool) -> String {
    if wakes {
        format!("{name} is waking up. Try again in a moment.\n")
    } else {
        format!("{name} is asleep.\n")
    }
}

/// `text` as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_machine_and_loads_nothing() {
        let page = html(&"web-1.example".parse().unwrap(), true, true);
        assert!(page.contains("<h1>web-1.example is waking up</h1>"), "{page}");
        assert!(page.contains("<meta http-equiv=\"refresh\" content=\"1\">"), "{page}");
        for outside in ["http:", "https:", "//", "src=", "href=", "url(", "<script", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.len() < 3000, "{} octets", page.len());
    }

    #[test]
    fn escapes_what_html_takes_for_its_own() {
        assert_eq!(escape("<b a=\"1\" c='2'>&"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
    }
}
