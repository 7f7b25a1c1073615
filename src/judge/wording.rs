//! The JSON of requests to a server, and of its replies: servers differ in the fields that they take.

use serde::Deserialize;
use serde_json::{Value, json};

use super::cache::Reply;

/// A request, independent of the names of the server's fields.
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) text: String,
    pub(super) temperature: f64,
    pub(super) max_tokens: u32,
}

/// The form of the requests that a server takes, as learnt from its refusals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manners {
    /// Whether the server wants `max_completion_tokens` in place of `max_tokens`.
    completion_tokens: bool,
    /// Whether the server takes no limit at all.
    no_limit: bool,
    /// Whether the server takes no temperature but its own.
    no_temperature: bool,
    /// The number of tokens added to the limit for thoughts before the reply: thoughts count as a part of the reply.
    room: u32,
}

/// The largest room for thoughts, more than any model uses.
const MOST_ROOM: u32 = 32_768;

impl Asked {
    /// The key of kept replies, which does not depend on the form that the server takes.
    pub(super) fn key(&self) -> String {
        self.body(Manners::default())
    }

    /// The request as JSON.
    pub(super) fn body(&self, manners: Manners) -> String {
        let message = json!({"role": "user", "content": self.text});
        let mut body = json!({"model": self.model, "messages": [message]});
        if !manners.no_temperature {
            body["temperature"] = self.temperature.into();
        }
        if !manners.no_limit {
            let field = if manners.completion_tokens { "max_completion_tokens" } else { "max_tokens" };
            body[field] = (self.max_tokens + manners.room).into();
        }
        body.to_string()
    }
}

impl Manners {
    /// Learns from a refusal; false if it says nothing new.
    pub(super) fn learn(&mut self, refusal: &str) -> bool {
        #[derive(Deserialize)]
        struct Refusal {
            error: Reason,
        }
        #[derive(Deserialize)]
        struct Reason {
            param: Option<String>,
            message: Option<String>,
        }
        let refusal_text = refusal.to_lowercase();
        let parsed = serde_json::from_str::<Refusal>(refusal).ok().map(|refusal| refusal.error);
        let named = parsed.as_ref().and_then(|reason| reason.param.clone()).unwrap_or_default();
        let message = parsed.and_then(|reason| reason.message).map_or(refusal_text, |message| message.to_lowercase());
        let before = *self;
        let about = |field: &str| named == field || named.is_empty() && message.contains(field);
        if about("temperature") {
            self.no_temperature = true;
        } else if about("max_completion_tokens") && self.completion_tokens && named != "max_tokens" {
            // The server takes neither name.
            self.no_limit = true;
        } else if about("max_tokens") {
            self.completion_tokens = true;
        }
        *self != before
    }

    /// Gives thoughts more room than `before`; false if that is more than any model uses.
    pub(super) fn make_room(&mut self, before: Self) -> bool {
        // Another request may have made room meanwhile.
        if self.room <= before.room {
            self.room = (before.room * 4).max(2048);
        }
        self.room <= MOST_ROOM
    }
}

/// A reply, and whether the server cut it off at its limit.
pub(super) struct Completed {
    pub(super) reply: Reply,
    pub(super) cut: bool,
}

#[derive(Deserialize)]
struct Completion {
    model: Option<String>,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
}

/// The reply in a server's response; `None` if the server does not answer like OpenAI's chat interface.
pub(super) fn completion(text: &str) -> Option<Completed> {
    let Completion { model, choices } = serde_json::from_str(text).ok()?;
    let Choice { message, finish_reason } = choices.into_iter().next()?;
    let text = match message.content {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        Some(_) => return None,
    };
    let cut = finish_reason.as_deref() == Some("length");
    Some(Completed { reply: Reply { text, model }, cut })
}

/// A reply without the thoughts that some models write before it.
pub(super) fn without_thoughts(reply: &str) -> &str {
    ["</think>", "</thinking>", "</reasoning>"]
        .iter()
        .find_map(|end| reply.rsplit_once(end).map(|(_, rest)| rest))
        .unwrap_or(reply)
        .trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_in_its_own_words() {
        let asked = Asked { model: "m".to_owned(), text: "t".to_owned(), temperature: 0.5, max_tokens: 8 };
        let mut manners = Manners::default();
        assert!(manners.learn(r#"{"error": {"message": "Use 'max_completion_tokens'.", "param": "max_tokens"}}"#));
        assert!(manners.learn("Unsupported value: temperature must be 1"));
        assert!(!manners.learn("something else is wrong"));
        assert!(manners.make_room(manners));
        let body: Value = serde_json::from_str(&asked.body(manners)).unwrap();
        assert_eq!((body.get("temperature"), body.get("max_tokens")), (None, None));
        assert_eq!(body["max_completion_tokens"], 2056);
        assert!(manners.learn(r#"{"detail": "max_completion_tokens: extra fields not permitted"}"#));
        assert!(!asked.body(manners).contains("tokens"));
        assert_eq!(asked.key(), asked.body(Manners::default()));
    }

    #[test]
    fn replies_are_found_in_all_their_forms() {
        for (message, expected, cut) in [
            (r#"{"message": {"content": "0.7"}, "finish_reason": "stop"}"#, "0.7", false),
            (r#"{"message": {"content": null}, "finish_reason": "length"}"#, "", true),
            (r#"{"message": {"content": [{"type": "text", "text": "0.7"}]}}"#, "0.7", false),
        ] {
            let found = completion(&format!("{{\"choices\": [{message}]}}")).unwrap();
            assert_eq!((&found.reply.text[..], found.cut), (expected, cut));
        }
        assert!(completion("{\"choices\": []}").is_none() && completion("<html>").is_none());
        assert_eq!(without_thoughts("<think>0.2 or 0.4?</think>\n0.7"), "0.7");
    }
}
