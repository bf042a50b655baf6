async fn f() { tokio::task::yield_now().await }
