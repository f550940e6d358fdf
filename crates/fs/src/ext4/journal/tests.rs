//! What needs no tool to be told.
