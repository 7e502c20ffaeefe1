use aws_sdk_dynamodb::error::{DisplayErrorContext, SdkError};
use fanfold_pipeline::ports::Unavailable;
use tokio::time::timeout;

use crate::Aws;

impl Aws {
    /// Sends a request that the service refuses, which opens the connection and loads the credentials.
    /// It does not count as a call in the meter, and a refusal is its success.
    pub(crate) async fn warm<T, E: std::error::Error + Send + Sync + 'static>(
        &self,
        hop: &'static str,
        sent: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<(), Unavailable> {
        match timeout(self.attempt_timeout, sent).await {
            Ok(Ok(_) | Err(SdkError::ServiceError(_))) => Ok(()),
            Ok(Err(error)) => {
                let message = DisplayErrorContext(&error).to_string();
                Err(Unavailable::Failed { hop, message })
            }
            Err(_) => Err(Unavailable::TimedOut { hop }),
        }
    }
}
