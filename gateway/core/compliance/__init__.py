"""What messages, answers, arguments and results must or must not carry, checked before and after each hop."""
