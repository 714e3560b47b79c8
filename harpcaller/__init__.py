"""The dispatcher: takes calls, queues them, runs them on harpd, keeps what they return."""
