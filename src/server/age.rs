//! Whether what a client sent may be from before this node stood still.
//!
//! A node that stood still (its process or its machine was stopped) finds requests in its sockets whose
//! clients may have given them up and gone on elsewhere: a write of them would come after writes that
//! were acknowledged meanwhile. So none is executed. Only a socket that was found empty since the
//! last stop has nothing of before it.

/// The age of what one connection reads, counted in stops of the node.
#[derive(Debug)]
pub(super) struct Age {
    /// How often the node had stood still when the socket was last known to be empty.
    at_empty: u64,
    /// The same for the last read, if that emptied the socket.
    emptied: Option<u64>,
    /// How often the node has stood still.
    stops: u64,
}

impl Age {
    /// A connection that had not been made yet after so many stops.
    pub(super) const fn new(stops: u64) -> Self {
        Self { at_empty: stops, emptied: None, stops }
    }

    /// The next read begins: all that was read before has run.
    pub(super) const fn handle_read(&mut self) {
        if let Some(stops) = self.emptied.take() {
            self.at_empty = stops;
        }
    }

    /// A read ended after so many stops and left nothing in the socket.
    pub(super) const fn handle_emptied(&mut self, stops: u64) {
        self.emptied = Some(stops);
    }

    /// What was read runs after so many stops.
    pub(super) const fn handle_run(&mut self, stops: u64) {
        self.stops = stops;
    }

    /// Whether what runs may have been sent before the last stop.
    pub(super) const fn may_be_old(&self) -> bool {
        self.at_empty != self.stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lay_in_the_socket_during_a_stop_is_old() {
        let mut age = Age::new(0);
        age.handle_read();
        age.handle_emptied(0);
        age.handle_run(0);
        assert!(!age.may_be_old());
        age.handle_run(1);
        assert!(age.may_be_old(), "it was read before the stop");
        age.handle_read();
        age.handle_run(1);
        assert!(age.may_be_old(), "more than one read was there");
        age.handle_read();
        age.handle_emptied(1);
        age.handle_run(1);
        assert!(age.may_be_old(), "the last of it");
        age.handle_read();
        age.handle_run(1);
        assert!(!age.may_be_old(), "the socket had been empty since");
    }

    #[test]
    fn a_connection_that_waited_during_a_stop_is_old() {
        let mut age = Age::new(3);
        age.handle_read();
        age.handle_run(4);
        assert!(age.may_be_old());
    }
}
