use streamer::app::App;

struct Print;

fn main() {
    App::new().handle("print", Print).unwrap();
}
