//! Signatures of AWS (version 4), which an API with the authorization `AWS_IAM` requires.

use std::time::SystemTime;

use anyhow::{Context, bail};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;

/// The name of API Gateway's requests in signatures.
const SERVICE: &str = "execute-api";
/// The variables with the credentials. Source: AWS's command line and SDKs.
const KEY: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";

/// Signs requests for a region.
pub(crate) struct Signer {
    region: String,
    identity: Identity,
}

impl Signer {
    /// A signer with the credentials that the environment has; `variable` reads a variable.
    pub(crate) fn new(
        region: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let read = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let (Some(key), Some(secret)) = (read(KEY), read(SECRET)) else {
            bail!(
                "--sign needs credentials in {KEY} and {SECRET}: set them by `eval \"$(aws configure export-credentials --format env)\"`"
            );
        };
        if region.trim().is_empty() {
            bail!("--sign names no region: write it as `--sign eu-central-1`");
        }
        let identity = Credentials::new(key, secret, read(TOKEN), None, "environment").into();
        Ok(Self { region: region.trim().to_owned(), identity })
    }

    /// The headers that sign a request with this body at this time: each with its name.
    pub(crate) fn headers(
        &self,
        method: &str,
        url: &str,
        body: &[u8],
        time: SystemTime,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let params = v4::SigningParams::builder()
            .identity(&self.identity)
            .region(&self.region)
            .name(SERVICE)
            .time(time)
            .settings(SigningSettings::default())
            .build()
            .context("cannot sign the request")?
            .into();
        let body = SignableBody::Bytes(body);
        let request = SignableRequest::new(method, url, std::iter::empty(), body);
        let signed = sign(request.context("cannot sign the request")?, &params);
        let (instructions, _) = signed.context("cannot sign the request")?.into_parts();
        let headers = instructions.headers();
        Ok(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn variables(name: &str) -> Option<String> {
        let known = [(KEY, "AKIDEXAMPLE"), (SECRET, "secret"), (TOKEN, "session")];
        known.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    }

    /// The signature is that of botocore 1.44 (`SigV4Auth`) for the same request.
    #[test]
    fn a_request_is_signed_as_by_the_sdk_for_python() {
        let signer = Signer::new("eu-central-1", variables).expect("credentials");
        let url = "https://api.example.com/stage/ops/parked/texts?limit=10&after=talk%2Forg%3Aa";
        let time = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let headers = signer.headers("POST", url, br#"{"seq":1}"#, time).expect("a signature");
        let header = |name: &str| {
            let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(header("x-amz-date"), Some("20270115T080000Z"));
        assert_eq!(header("x-amz-security-token"), Some("session"));
        let (signed, signature) = header("authorization")
            .and_then(|value| value.rsplit_once(", Signature="))
            .expect("a signature");
        assert_eq!(
            signed,
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20270115/eu-central-1/execute-api/aws4_request, \
             SignedHeaders=host;x-amz-date;x-amz-security-token"
        );
        assert_eq!(signature, "980443860efd1b5a2506b99168c9f5f6722fd1b6beaa91906235c7f3094074ef");
    }

    #[test]
    fn credentials_and_a_region_are_needed() {
        let error = Signer::new("eu-central-1", |_| None).err().expect("no credentials");
        assert!(error.to_string().contains(KEY), "{error}");
        let error = Signer::new(" ", variables).err().expect("no region");
        assert!(error.to_string().contains("--sign eu-central-1"), "{error}");
    }
}
