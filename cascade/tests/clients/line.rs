//! A line to the shop that can be cut: what passes through it breaks off, and nobody gets through until it is mended.

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The line. It is cut when it is dropped.
pub struct Line {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Line {
    /// A line to this port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (is_open, state) = watch::channel(true);
        drop(tokio::spawn(serve(listener, port, state)));
        Self { port: own, is_open }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn cut(&self) {
        self.is_open.send_replace(false);
    }

    pub fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

async fn serve(listener: TcpListener, port: u16, state: watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut state = state.clone();
        drop(tokio::spawn(async move {
            // Whoever comes while it is cut is turned away at once: nothing is read, and the connection is reset.
            if !*state.borrow() {
                return;
            }
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
            tokio::select! {
                biased;
                _ = state.wait_for(|is_open| !is_open) => {}
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            }
        }));
    }
}
