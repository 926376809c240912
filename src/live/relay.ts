import { setTimeout as pause } from "node:timers/promises";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import type { JetStreamManager, NatsConnection, StreamState } from "nats";
import type { Logger } from "pino";
import type { LogReader } from "../log/reader.ts";
import type { NatsClient } from "../nats/nats-client.ts";
import { type EventStreamSettings, ensureEventStream, findEventStream, findMessage } from "./event-stream.ts";
import { createMirrorPublisher, OvertakenError } from "./mirror-publisher.ts";
import { eventStreamName } from "./subjects.ts";

/** Mirrors the log into JetStream, beside the relays of other processes. */
export type Relay = {
  /** Throws, with the reason, while the mirror does not follow the log. */
  check(): Promise<void>;
  stop(): Promise<void>;
};

export type RelayOptions = {
  readonly nats: NatsClient;
  readonly reader: LogReader;
  readonly settings: EventStreamSettings;
  readonly logger: Logger;
};

const RETRY_MS = 250;
/** How often a relay looks that leaves the work to another. */
const STANDBY_MS = 500;
/** How long a new primary may show less of the log than the mirror has, before the mirror is taken for one of another log. */
const AHEAD_MS = 5000;
/** How often it is looked whether the mirror still has what it should. */
const HELD_MS = 5000;
/** By how much clocks may differ, and how much less than its limit the stream may hold before it drops messages. */
const AGE_SLACK_MS = 60_000;
const BYTES_SLACK = 0.9;
/** How far behind the mirror may be, and for how long, before that is told. */
const BEHIND_MS = 5000;

/** The mirror has what the log does not, as it was made of another log, or of what a restored one does not hold; or lacks what it should have. */
class ForeignMirror extends Error {
  override readonly name = "ForeignMirror";
}

/**
 * Begins to mirror. The sequence of a message is the position of its entry, and each is published with the sequence that it
 * expects before it: so each is there once, in order, however many relays publish and wherever one ends. Who finds
 * another at work stands by, and takes over when the mirror stays behind.
 */
export function startRelay({ nats, reader, settings, logger }: RelayOptions): Relay {
  const { prefix } = settings;
  const stopping = new AbortController();
  let mirrored = 0;
  let lastError: unknown;
  let aheadSince: number | undefined;
  let keptUpAt = performance.now();

  async function run(): Promise<void> {
    const { signal } = stopping;
    while (!signal.aborted) {
      try {
        const connection = nats.connected();
        if (!connection) throw new Error("there is no connection to NATS");
        const manager = await connection.jetstreamManager();
        await mirror(connection, await agree(manager), manager);
      } catch (error) {
        if (signal.aborted) return;
        if (error !== lastError && String(error) !== String(lastError))
          logger.warn({ err: error }, "the log is not mirrored; trying again");
        lastError = error;
        await pause(RETRY_MS, undefined, { signal }).catch(() => undefined);
      }
    }
  }

  /** Makes sure that there is a stream and that it mirrors this log; answers how far. */
  async function agree(manager: JetStreamManager): Promise<number> {
    const { state } = await ensureEventStream(manager, settings);
    try {
      await compare(manager, state.last_seq);
      await checkHeld(state);
    } catch (error) {
      if (!(error instanceof ForeignMirror)) throw error;
      logger.error(
        { err: error },
        "THE MIRROR IN NATS IS NOT OF THIS LOG: it is made again from the first entry, and its consumers with it",
      );
      await manager.streams.delete(eventStreamName(prefix));
      return (await ensureEventStream(manager, settings)).state.last_seq;
    }
    aheadSince = undefined;
    return state.last_seq;
  }

  /** Throws a ForeignMirror when the last message is not the log's entry at that position. */
  async function compare(manager: JetStreamManager, last: number): Promise<void> {
    if (last === 0) return;
    if ((await reader.head()) < last) {
      aheadSince ??= performance.now();
      const message = `the log does not reach position ${last}, which the mirror has`;
      throw performance.now() - aheadSince > AHEAD_MS ? new ForeignMirror(message) : new Error(message);
    }
    const message = await findMessage(manager, prefix, last);
    if (!message) return;
    for await (const [entry] of reader.readForward({ after: last - 1, to: last })) {
      if (entry && Buffer.compare(entry.body, message.data) === 0) return;
    }
    throw new ForeignMirror(`the mirror's message ${last} is not the log's entry`);
  }

  /** Throws a ForeignMirror when the mirror lacks entries at its beginning that it should still keep: somebody has purged it. */
  async function checkHeld({ first_seq, last_seq, bytes }: StreamState): Promise<void> {
    const { maxAgeSeconds, maxBytes } = settings;
    if (last_seq === 0 || first_seq <= 1 || (maxBytes > 0 && bytes > maxBytes * BYTES_SLACK)) return;
    const gone = first_seq - 1;
    for await (const [entry] of reader.readForward({ after: gone - 1, to: gone })) {
      const recordedAt = entry?.entry.recordedAt;
      if (!recordedAt) return;
      const age = Date.now() - timestampDate(recordedAt).getTime();
      if (maxAgeSeconds > 0 && age > maxAgeSeconds * 1000 - AGE_SLACK_MS) return;
      throw new ForeignMirror(`the mirror does not have entry ${gone} any more, which it should keep`);
    }
  }

  /** Rejects when the mirror lacks what it should have. */
  async function watchHeld(manager: JetStreamManager, signal: AbortSignal): Promise<never> {
    for (;;) {
      await pause(HELD_MS, undefined, { signal });
      const stream = await findEventStream(manager, prefix);
      if (stream) await checkHeld(stream.state);
    }
  }

  /** Publishes what comes after a position, until it is stopped or something fails; stands by when another relay has been faster. */
  async function mirror(connection: NatsConnection, after: number, manager: JetStreamManager): Promise<void> {
    const ending = new AbortController();
    using publisher = createMirrorPublisher(connection, prefix, progressed);
    progressed(after);
    const publishing = (async () => {
      for await (const { entries } of reader.follow({ after, signal: AbortSignal.any([stopping.signal, ending.signal]) })) {
        for (const entry of entries) {
          if (publisher.isFull()) await publisher.untilRoom();
          publisher.publish(entry);
        }
      }
    })();
    const held = watchHeld(manager, AbortSignal.any([stopping.signal, ending.signal]));
    held.catch(() => undefined);
    try {
      await Promise.race([publishing, publisher.failed, held]);
    } catch (error) {
      if (!(error instanceof OvertakenError)) throw error;
      await standBy(manager);
    } finally {
      ending.abort();
      await publishing.catch(() => undefined);
    }
  }

  /** Leaves the work to another relay for as long as the mirror keeps up. */
  async function standBy(manager: JetStreamManager): Promise<void> {
    logger.debug("another process mirrors the log");
    for (let before = -1; !stopping.signal.aborted; ) {
      const stream = await findEventStream(manager, prefix);
      const head = await reader.head();
      const last = stream?.state.last_seq ?? 0;
      if (last >= head) keptUp(last);
      else if (last === before) return;
      before = last < head ? last : -1;
      await pause(STANDBY_MS, undefined, { signal: stopping.signal }).catch(() => undefined);
    }
  }

  function progressed(position: number): void {
    mirrored = Math.max(mirrored, position);
    lastError = undefined;
    keptUpAt = performance.now();
  }

  function keptUp(position: number): void {
    mirrored = position;
    lastError = undefined;
    keptUpAt = performance.now();
  }

  const running = run();
  return {
    async check() {
      const behind = (await reader.head()) - mirrored;
      if (lastError !== undefined) throw new Error(`the log is not mirrored: ${behind} entries behind`, { cause: lastError });
      if (behind > 0 && performance.now() - keptUpAt > BEHIND_MS) throw new Error(`the mirror of the log is ${behind} entries behind`);
    },
    async stop() {
      stopping.abort();
      await running;
    },
  };
}
