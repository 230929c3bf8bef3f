use std::path::PathBuf;

use reqwest::header::HeaderValue;

/// An access token. It is shown nowhere, `Debug` included.
#[derive(Clone)]
pub(super) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(hidden)")
    }
}

impl Token {
    /// `HF_TOKEN`, else the file that a login wrote (`HF_TOKEN_PATH`, else `token` in the home), as
    /// Python's huggingface_hub looks for it.
    pub fn from_env() -> Option<Self> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        if set("HF_HUB_DISABLE_IMPLICIT_TOKEN").is_some() {
            return None;
        }
        let file = || {
            let path = set("HF_TOKEN_PATH").map(PathBuf::from);
            let path = path.unwrap_or_else(|| hf_hub::hf_home().join("token"));
            std::fs::read_to_string(path).ok()
        };
        let token = set("HF_TOKEN").or_else(file)?.trim().to_owned();
        (!token.is_empty()).then_some(Self(token))
    }

    /// As hf-hub wants it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The value of `Authorization`; `None` for a token that no header can carry.
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.0)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// A server's words without the token, should it repeat what it was sent.
    pub fn hidden_in(&self, text: &str) -> String {
        text.replace(&self.0, "(token)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_nowhere() {
        let token = Token("hf_secret".to_owned());
        assert!(!format!("{token:?} {:?}", token.header()).contains("secret"));
        assert_eq!(token.hidden_in("bad token hf_secret!"), "bad token (token)!");
        assert!(Token("a\nb".to_owned()).header().is_none());
    }
}
