import { connect, type MsgHdrs } from "nats";
import { expect } from "vitest";
import { eventStreamName } from "../../src/live/subjects.ts";
import { eventually } from "../support/eventually.ts";
import { collect } from "../support/log.ts";
import type { LogAccess } from "../support/open-log.ts";

/** A message of the mirror. */
export type Mirrored = { readonly seq: number; readonly subject: string; readonly data: Uint8Array; readonly header: MsgHdrs | undefined };

/** Every message of the mirror, as a consumer gets it. */
export async function readMirror(port: number, prefix: string): Promise<Mirrored[]> {
  const connection = await connect({ servers: `127.0.0.1:${port}` });
  try {
    const stream = eventStreamName(prefix);
    const { state } = await (await connection.jetstreamManager()).streams.info(stream);
    const found: Mirrored[] = [];
    if (state.messages === 0) return found;
    const consumer = await connection.jetstream().consumers.get(stream);
    const messages = await consumer.consume({ max_messages: 1000 });
    for await (const message of messages) {
      found.push({ seq: message.seq, subject: message.subject, data: message.data, header: message.headers });
      if (message.seq >= state.last_seq) break;
    }
    return found;
  } finally {
    await connection.close();
  }
}

/** Waits until the mirror has the log's entries, each once, in order, and as they are; answers how many. */
export async function expectMirrorEqualsLog(
  port: number,
  prefix: string,
  log: Pick<LogAccess, "reader">,
  withinMs = 20_000,
): Promise<number> {
  const entries = await collect(log.reader.readForward({ after: 0 }));
  await eventually(async () => {
    const connection = await connect({ servers: `127.0.0.1:${port}` });
    try {
      const { state } = await (await connection.jetstreamManager()).streams.info(eventStreamName(prefix));
      expect(state.last_seq).toBe(entries.length);
    } finally {
      await connection.close();
    }
  }, withinMs);
  const mirror = await readMirror(port, prefix);
  expect(mirror.length).toBe(entries.length);
  const different = entries.filter(({ position, body, entry }, index) => {
    const message = mirror[index];
    return !(
      message?.seq === position &&
      message.header?.get("Nats-Msg-Id") === String(position) &&
      message.subject === `${prefix}.events.${entry.stream.replace("-", ".")}` &&
      Buffer.compare(message.data, body) === 0
    );
  });
  expect(different.map(({ position }) => position)).toEqual([]);
  return entries.length;
}
