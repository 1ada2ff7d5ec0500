"""Call a service's handler with a message: arguments, middleware, threads, rates, order, errors."""
