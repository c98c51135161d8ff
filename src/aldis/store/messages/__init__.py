"""Messages between two stores: queues, delivery exactly once, control messages, and what waits for the application."""
