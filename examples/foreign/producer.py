"""A producer that knows nothing of Leveret: a dozen lines of pika, one message a job, to a classic queue of its own.

Usage: python examples/foreign/producer.py amqp://localhost 1000
"""

import json
import sys

import pika

url, count = sys.argv[1], int(sys.argv[2])
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.queue_declare("foreign", durable=True)
channel.confirm_delivery()
persistent = pika.BasicProperties(delivery_mode=2)
for number in range(1, count + 1):
    job = {"id": number, "value": number % 25, "retry_count": 0}
    channel.basic_publish("", "foreign", json.dumps(job), persistent)
connection.close()
print(f"published {count}")
