"""How many servers like this one its load needs: from what it measures anyway, for autoscalers to add up over pods."""
