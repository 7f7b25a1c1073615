//! A judge's address: where requests go, and which part of it may be shown.

use base64::{Engine, engine::general_purpose::STANDARD};
use url::Url;

use crate::Error;

/// The address of a judge.
#[derive(Clone, Debug)]
pub(super) struct Address {
    /// The address of its chat interface.
    target: Url,
    /// The user and the password of the address in base64, for the header of a request.
    login: Option<String>,
    /// The user and the password, which are never shown.
    secrets: Vec<String>,
    /// The address without secrets: no user, no password, no query.
    shown: String,
}

impl Address {
    /// Reads the address that the user gave, with or without `/chat/completions` at its end, and with a query where the
    /// server wants one.
    ///
    /// # Errors
    /// When it is no http address.
    pub(super) fn parse(given: &str) -> Result<Self, Error> {
        let url = Url::parse(given.trim()).ok();
        let Some(mut url) = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some()) else {
            // The given address may hold a key.
            let plain = given.split(['?', '#']).next().unwrap_or_default();
            let plain = plain.rsplit('@').next().unwrap_or_default();
            let shown = secateur_weights::printable(plain);
            let reason = "has no http address; give one as in --judge-url http://localhost:8000/v1".to_owned();
            return Err(Error::Judge { url: shown, reason });
        };
        let secrets = [url.username(), url.password().unwrap_or_default()].map(percent_decoded).to_vec();
        let login = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let plain = |text: &str| percent_decoded(text);
            STANDARD.encode(format!("{}:{}", plain(url.username()), plain(url.password().unwrap_or_default())))
        });
        // Neither call fails for an address that has a host.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        url.set_fragment(None);
        let base =
            url.path().trim_end_matches('/').trim_end_matches("/chat/completions").trim_end_matches('/').to_owned();
        let mut shown = url.clone();
        shown.set_query(None);
        shown.set_path(&base);
        url.set_path(&format!("{base}/chat/completions"));
        Ok(Self { target: url, login, secrets, shown: shown.as_str().trim_end_matches('/').to_owned() })
    }

    /// The address to which requests go.
    pub(super) fn target(&self) -> &str {
        self.target.as_str()
    }

    /// The address as it is shown and kept.
    pub(super) fn shown(&self) -> String {
        self.shown.clone()
    }

    /// Removes the secrets of the address, and `key`, from `text`: servers repeat what they were sent.
    pub(super) fn without_secrets(&self, text: &str, key: Option<&str>) -> String {
        let query = self.target.query_pairs().map(|(_, value)| value.into_owned());
        let secrets = query.chain(self.login.clone()).chain(self.secrets.clone()).chain(key.map(str::to_owned));
        // Shorter secrets occur in any text.
        let mut secrets: Vec<String> = secrets.filter(|secret| secret.len() > 3).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "…"))
    }

    /// The header that says who asks: the key, else the login in the address.
    pub(super) fn authorization(&self, key: Option<&str>) -> Option<String> {
        let login = || self.login.as_ref().map(|login| format!("Basic {login}"));
        key.map(|key| format!("Bearer {key}")).or_else(login)
    }
}

fn percent_decoded(text: &str) -> String {
    url::form_urlencoded::parse(text.replace('+', "%2B").as_bytes()).map(|(name, _)| name.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_joined_and_secrets_are_not_shown() {
        for (given, target, shown) in [
            ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions", "http://localhost:8000/v1"),
            ("http://h/v1/chat/completions/", "http://h/v1/chat/completions", "http://h/v1"),
            (
                "https://u:p%40@h/v1?api-version=1&key=SECRET",
                "https://h/v1/chat/completions?api-version=1&key=SECRET",
                "https://h/v1",
            ),
            ("http://h", "http://h/chat/completions", "http://h"),
        ] {
            let address = Address::parse(given).unwrap();
            assert_eq!((address.target(), &address.shown()[..]), (target, shown));
        }
        let address = Address::parse("https://u:p%40@h").unwrap();
        assert_eq!(address.authorization(None).as_deref(), Some("Basic dTpwQA=="));
        assert_eq!(address.authorization(Some("k")).as_deref(), Some("Bearer k"));
        let error = Address::parse("ftp://user:SECRET@h/x?key=SECRET").unwrap_err().to_string();
        assert!(error.contains("no http address") && !error.contains("SECRET"), "{error}");
    }
}
