"""A Cortex AsyncAPI on one machine: gateway, queue and dequeuer in front of a container.

Imports point one way: runtime -> endpoint -> service -> queue -> storage -> types, and
runtime -> dequeuer -> queue. Nothing here imports the container's code: they meet over HTTP.
"""
