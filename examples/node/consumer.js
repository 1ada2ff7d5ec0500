// Consumes orders.payment of examples/orders/topology.yaml, beside or instead of the Python service.
import amqp from "amqplib";
import { publisher, settler } from "./retry.js";

const url = process.env.AMQPFLOW_URL ?? "amqp://guest:guest@localhost/";
const queue = "orders.payment";
const tiers = [["1s", 1_000], ["5s", 5_000], ["30s", 30_000]].map(([text, ms]) => [`${queue}.retry.${text}`, ms]);

async function handle(order, attempt) {
  if (order.total < 0) throw new RangeError("negative total");
  if (attempt <= (order.failures ?? 0)) throw new Error("the payment gateway did not answer");
}

// two connections: under an alarm RabbitMQ reads nothing from one that publishes, not even acks
const [reading, writing] = [await amqp.connect(url), await amqp.connect(url)];
const [consuming, publishing] = [await reading.createChannel(), await writing.createConfirmChannel()];
// nothing is settled on a channel that is gone: the process ends, and what was unacked comes again
for (const each of [reading, writing, consuming, publishing]) {
  each.on("error", (error) => console.error(error.message));
  each.on("close", () => process.exit(stopping ? 0 : 1));
}
const { attempt, ack, retry, park } = settler({ name: "orders", queue, tiers, consuming, publish: publisher(publishing) });

let stopping = false, started = 0;
const idle = () => stopping && started === 0 && reading.close();
await consuming.prefetch(10);
const { consumerTag } = await consuming.consume(queue, async (message) => {
  if (message === null) process.exit(1); // the broker cancelled us: the queue is gone, or a timeout
  if (stopping) return consuming.nack(message); // not reject, which counts against the delivery limit
  started += 1;
  try {
    await handle(JSON.parse(message.content), attempt(message));
    ack(message);
    console.log("acked", message.properties.messageId, "attempt", attempt(message));
  } catch (error) {
    const permanent = error instanceof RangeError || error instanceof SyntaxError;
    await (permanent ? park(message, "permanent", error, "invalid order") : retry(message, error));
    console.log(permanent ? "parked" : "failed", message.properties.messageId, "attempt", attempt(message));
  }
  started -= 1;
  idle();
});
console.log("consuming", queue);

process.on("SIGTERM", async () => {
  stopping = true;
  await consuming.cancel(consumerTag);
  idle();
});
