"""What other people's software says about the gateway: the official A2A kit and a real peer."""
