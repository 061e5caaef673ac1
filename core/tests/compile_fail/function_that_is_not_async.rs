use streamer::app::App;
use streamer::handler::HandlerError;

fn double(number: u32) -> Result<u32, HandlerError> {
    Ok(number * 2)
}

fn main() {
    App::new().handle("double", double).unwrap();
}
