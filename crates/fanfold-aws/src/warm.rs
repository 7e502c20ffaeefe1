use aws_sdk_dynamodb::error::{DisplayErrorContext, SdkError};
use fanfold_pipeline::ports::Unavailable;
use tokio::time::timeout;

use crate::Aws;

impl Aws {
    /// Sends a request that the service refuses, which opens the connection and loads the
    /// credentials. The meter does not count it, and a refusal counts as success.
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
