//! The worker's side.

use std::{io, sync::mpsc, thread};

use serde_json::Value;

use super::protocol::{self, Order, Reply};

/// Takes the result for a question.
pub(in crate::cli) type Answered<'a> = &'a mut dyn FnMut(usize, Value) -> io::Result<()>;

/// Carries out the orders that come on stdin, until it ends. Call it when the model is loaded.
///
/// # Errors
/// When an order cannot be carried out, or nobody reads the results any more.
pub(in crate::cli) fn serve(mut carry_out: impl FnMut(Order, Answered) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let orders = orders();
    protocol::write(&Reply::Ready)?;
    for order in orders {
        carry_out(order, &mut |question, value| protocol::write(&Reply::Result { question, value }))?;
        protocol::write(&Reply::Done)?;
    }
    Ok(())
}

/// The orders on stdin, read beside the work: when the process that gives them ends, however it does, this one ends at once.
fn orders() -> mpsc::Receiver<Order> {
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lines() {
            let order = line.ok().and_then(|line| serde_json::from_str(&line).ok());
            if order.is_none_or(|order| sender.send(order).is_err()) {
                break;
            }
        }
        std::process::exit(0)
    });
    orders
}
