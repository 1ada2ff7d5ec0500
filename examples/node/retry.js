// Retry and park as amqpflow does: docs/protocol.md, section by section.
import os from "node:os";

const KEPT = ["x-death", "CC", "x-opt-delivery-time", "x-opt-delivery-delay"]; // shown to handlers from the record
const BROKERS = [...KEPT, "x-delivery-count", "x-acquired-count", "x-stream-offset", "BCC"];
const DEATHS = /^x-(first|last)-death-(queue|reason|exchange)$/;
const stays = (name) => BROKERS.includes(name) || DEATHS.test(name) || name.startsWith("x-amqpflow-");

/** Publishes on a confirm channel: true when confirmed, false when returned or nacked (section 2). */
export function publisher(channel) {
  const returned = new Set();
  const inFlight = new Map(); // what a return can be told by -> the publish before it with the same
  const key = (exchange, routingKey, hop) => JSON.stringify([exchange, routingKey, hop]);
  channel.on("return", ({ fields, properties }) =>
    returned.add(key(fields.exchange, fields.routingKey, properties.headers["x-amqpflow-hop"])));
  return (exchange, routingKey, body, options) => {
    const id = key(exchange, routingKey, options.headers["x-amqpflow-hop"]);
    const publish = () => new Promise((resolve) =>
      channel.publish(exchange, routingKey, body, { ...options, mandatory: true, persistent: true }, (nack) =>
        resolve(!returned.delete(id) && !nack)));
    const done = (inFlight.get(id) ?? Promise.resolve()).then(publish);
    inFlight.set(id, done);
    return done.finally(() => inFlight.get(id) === done && inFlight.delete(id));
  };
}

/** What one work queue's handler needs: `tiers` are [queue, delay in ms], the shortest first. */
export function settler({ name, queue, tiers, parking = `${queue}.parking`, consuming, publish }) {
  /** Attempts made before this delivery: only our headers of this queue count (section 4). */
  const before = ({ properties: { headers = {} } }) => (headers["x-amqpflow-queue"] === queue ? headers : {});
  const attempt = (message) => 1 + (before(message)["x-amqpflow-attempt"] ?? 0);

  function copy(message, target, more) {
    const { properties: { headers = {}, expiration, userId, ...properties }, fields, content } = message;
    const record = before(message), now = Date.now(), made = attempt(message), replay = record["x-amqpflow-replay"];
    const root = record["x-amqpflow-hop"]?.split("/").slice(0, -2).join("/") ?? properties.messageId ?? crypto.randomUUID();
    const kept = Object.entries(headers).filter(([header]) => KEPT.includes(header) || DEATHS.test(header));
    const original = record["x-amqpflow-queue"] ? record["x-amqpflow-original"] : Object.fromEntries(
      [["expiration", expiration], ["user_id", userId], ...kept].filter(([, value]) => value !== undefined));
    const past = { at: now, tier: target, "error-type": more["x-amqpflow-error-type"] ?? "" };
    const ours = {
      "x-amqpflow-queue": queue,
      "x-amqpflow-attempt": made,
      "x-amqpflow-hop": `${root}/${replay?.count ?? 0}/${made}`, // a pure function of the delivery (section 5)
      "x-amqpflow-exchange": record["x-amqpflow-exchange"] ?? fields.exchange,
      "x-amqpflow-routing-key": record["x-amqpflow-routing-key"] ?? fields.routingKey,
      "x-amqpflow-first-failed-at": record["x-amqpflow-first-failed-at"] ?? now,
      "x-amqpflow-failed-at": now,
      "x-amqpflow-history": [...(record["x-amqpflow-history"] ?? []).slice(-9), past],
      "x-amqpflow-host": os.hostname(),
      "x-amqpflow-version": "orders-in-node/1.0",
      ...(original && Object.keys(original).length ? { "x-amqpflow-original": original } : {}),
      ...(replay ? { "x-amqpflow-replay": replay } : {}),
    };
    const travels = Object.fromEntries(Object.entries(headers).filter(([header]) => !stays(header)));
    return { body: content, options: { ...properties, headers: { ...travels, ...ours, ...more } } };
  }

  /** `consumer.js:12`: the innermost line of the stack that is neither Node's nor a package's (section 3). */
  const place = (error) => {
    const lines = String(error.stack).split("\n").filter((line) => /^\s+at .*\d/.test(line));
    return /([^/(]+:\d+):\d+\)?$/.exec(lines.find((line) => !/node:|node_modules|<anonymous>/.test(line)) ?? "")?.[1];
  };

  const failure = (error) => ({
    "x-amqpflow-error-type": String(error.name).slice(0, 255),
    "x-amqpflow-error-message": String(error.message).slice(0, 256),
    ...(place(error) && { "x-amqpflow-error-location": place(error).slice(-255) }),
  });

  async function park(message, reason, error, detail) {
    const more = { "x-amqpflow-reason": reason, ...failure(error), ...(detail && { "x-amqpflow-reason-detail": detail }) };
    const { body, options } = copy(message, "parking", more);
    for (let wait = 500; !(await publish(`${name}.parking`, parking, body, options)); wait = Math.min(wait * 2, 30_000)) {
      console.error(`cannot park, trying again in ${wait} ms`); // it stays unacked: never lost, and not hidden
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    consuming.ack(message);
  }

  async function retry(message, error) {
    if (attempt(message) > tiers.length) return park(message, "exhausted", error);
    for (const [tier, delay] of tiers.slice(attempt(message) - 1)) { // returned: the next longer one (section 2)
      const { body, options } = copy(message, tier, { ...failure(error), "x-amqpflow-due-at": Date.now() + delay });
      if (await publish(`${name}.retry`, tier, body, options)) return consuming.ack(message);
    }
    return park(message, "no-route", error);
  }

  return { attempt, retry, park, ack: (message) => consuming.ack(message) };
}
