//! What sandboxes of two bots can reach of each other and of the machine.

mod network;
