use streamer::app::App;
use streamer::handler::HandlerError;

async fn shout(text: &str) -> Result<String, HandlerError> {
    Ok(text.to_uppercase())
}

fn main() {
    App::new().handle("shout", shout).unwrap();
}
