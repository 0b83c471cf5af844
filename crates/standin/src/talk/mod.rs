//! What is said over a connection.

mod answer;
mod echo;
mod http;
mod page;
mod say;
mod web;

use dormouse_types::{Service, ServiceKind, Timestamp};
use smoltcp::socket::tcp;

use crate::Settings;

use say::Saying;
use web::Web;

/// A service's side of one connection.
#[derive(Debug)]
pub(crate) struct Talk {
    port: u16,
    used: Option<Use>,
    words: Words,
}

/// A use of the service.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) at: Timestamp,
    /// In a few words.
    pub(crate) why: String,
}

#[derive(Debug)]
enum Words {
    Web(Box<Web>),
    Echo,
    /// A text, then the end; what the client says is not listened to.
    Say(&'static str, Saying),
}

impl Talk {
    pub(crate) fn new(service: &Service, settings: &Settings) -> Self {
        let words = match &service.kind {
            ServiceKind::WakingPage => Words::Web(Box::new(Web::new(settings.name.clone(), service.wakes))),
            ServiceKind::Echo => Words::Echo,
            ServiceKind::Banner(text) => Words::Say("banner", Saying::new(text.clone().into_bytes())),
            ServiceKind::Connect => Words::Say("connect", Saying::new(Vec::new())),
        };
        Self { port: service.port, used: None, words }
    }

    /// Hears what there is to hear and says what there is to say, over a connection that stands.
    pub(crate) fn go_on(&mut self, socket: &mut tcp::Socket<'_>, now: Timestamp) {
        let used = match &mut self.words {
            Words::Web(web) => web.go_on(socket, now).map(|what| format!("{what} (waking-page)")),
            Words::Echo => echo::go_on(socket).then(|| "(echo)".into()),
            Words::Say(name, saying) => {
                say::ignore(socket);
                saying.go_on(socket);
                Some(format!("({name})"))
            }
        };
        if let Some(what) = used.filter(|_| self.used.is_none()) {
            self.used = Some(Use { at: now, why: format!("tcp:{} {what}", self.port) });
        }
    }

    /// Its first use: a request answered, an octet sent back, a connection taken.
    pub(crate) const fn used(&self) -> Option<&Use> {
        self.used.as_ref()
    }

    /// Is there no last word in it?
    pub(crate) const fn is_open_ended(&self) -> bool {
        matches!(self.words, Words::Echo)
    }

    /// When it is to go on even if nothing is heard.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        match &self.words {
            Words::Web(web) => web.deadline(),
            Words::Echo | Words::Say(..) => None,
        }
    }
}
