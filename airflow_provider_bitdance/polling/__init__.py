"""When and how predictions are polled until they end. Polling only reads, and is free."""
