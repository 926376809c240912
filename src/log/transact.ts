import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { timestampFromDate, timestampMs } from "@bufbuild/protobuf/wkt";
import { LRUCache } from "lru-cache";
import type { Actor } from "../domain/caller.ts";
import { Refusal, Unavailable } from "../domain/refusal.ts";
import type { Event, Origin } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { type Door, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { type Appender, StreamConflict } from "./appender.ts";
import { batched } from "./batched.ts";
import { createEntry, encodeEntry, type RecordedEntry } from "./log-entry.ts";
import { checkVersions, type LogReader } from "./reader.ts";
import { areSameEvents } from "./same-events.ts";
import type { Answered, UnchangedCommands } from "./unchanged-commands.ts";

/** A kind of thing whose events make up one stream each, such as orders. */
export type Category<State> = {
  readonly streamOf: (id: string) => string;
  readonly evolve: (state: State | undefined, event: Event, context: { readonly actor: Actor; readonly recordedAt: Date }) => State;
};

/** A thing as the first `version` entries of its stream tell it; `position` is that of the last of them. */
export type Snapshot<State> = { readonly state: State; readonly version: number; readonly position: number };

/** A command's circumstances, recorded with what it brings about. */
export type Command<State> = {
  /** The RPC's full name. */
  readonly method: string;
  /** The caller's identifier of the command; empty when it gave none. */
  readonly requestId: string;
  readonly correlationId: string;
  readonly causationId?: string;
  readonly actor: Actor;
  readonly door: Door;
  /** From where it came; absent where Ordertrail gives it itself. */
  readonly origin?: Origin | undefined;
  /** What the command brings about; none when things are so already. Throws a Refusal. May be called several times. */
  readonly decide: (state: State | undefined) => Event[];
  /** Why nothing may be recorded of it now; a command that was carried out before still gets its answer. */
  readonly refusal?: Refusal | undefined;
  /** Whether things may have been as the command wants them before. Absent: they may. Where they cannot, a look-up is spared. */
  readonly mayHaveBeenSo?: (state: State) => boolean;
};

/**
 * What a command led to, and the state before it. `appended` is false when nothing was recorded: things were so already,
 * or the request_id had been seen before; `before` and the snapshot are then those of the first time.
 */
export type Outcome<State> = Snapshot<State> & { readonly before: State | undefined; readonly appended: boolean };

/** Loads, decides, appends, and does it again when others were faster. The only way to write to the log. */
export type Transactor<State> = {
  /**
   * Carries out a command. What it answers is durable. Throws a Refusal (of `decide`; REQUEST_ID_REUSED; CONFLICT after
   * losing several races; OVERLOADED) with nothing recorded, or what the appender throws.
   */
  transact(id: string, command: Command<State>, signal?: AbortSignal): Promise<Outcome<State>>;
  /** The thing as it stands, every acknowledged command included; undefined when there is none. */
  read(id: string): Promise<Snapshot<State> | undefined>;
};

type Loaded<State> = {
  readonly state: State | undefined;
  readonly version: number;
  readonly position: number;
  /** When the newest entry was recorded, in milliseconds. */
  readonly at: number;
  /** Which version each request_id led to, and by which method. Shared with, and added to by, later states of the stream. */
  readonly requests: Map<string, Answered>;
};

const MAX_ATTEMPTS = 8;
/** Commands on one stream wait for each other here, where the appender's bound does not see them. */
const MAX_UNDER_WAY = 20_000;
/** Stands in where an entry of another writer names no actor. */
const NOBODY: Actor = { role: Role.UNSPECIFIED, subject: "" };

export function createTransactor<State>(
  category: Category<State>,
  appender: Appender,
  reader: LogReader,
  unchanged: UnchangedCommands,
  options: { readonly cachedStreams: number; readonly now: () => Date },
): Transactor<State> {
  const cache = new LRUCache<string, Loaded<State>>({ max: options.cachedStreams });
  /** The end of the last command on each stream that this process is busy with: one at a time spares conflicts. */
  const busy = new Map<string, Promise<unknown>>();
  let underWay = 0;
  const readBeyond = batchReads(reader);

  const empty = (): Loaded<State> => ({ state: undefined, version: 0, position: 0, at: 0, requests: new Map() });

  function fold(loaded: Loaded<State>, { entry, position }: RecordedEntry): Loaded<State> {
    const recordedAt = entry.recordedAt ? timestampMs(entry.recordedAt) : loaded.at;
    const context = { actor: entry.actor ?? NOBODY, recordedAt: new Date(recordedAt) };
    let state = loaded.state;
    for (const event of entry.events) state = category.evolve(state, event, context);
    if (entry.requestId !== "") loaded.requests.set(entry.requestId, { version: entry.version, method: entry.method });
    return { state, version: entry.version, position, at: recordedAt, requests: loaded.requests };
  }

  /** The newest state, read from the log beyond what is remembered of it. */
  async function refresh(stream: string): Promise<Loaded<State>> {
    const known = cache.get(stream) ?? empty();
    const loaded = (await readBeyond({ stream, after: known.version })).reduce(fold, known);
    return remember(stream, loaded);
  }

  function remember(stream: string, loaded: Loaded<State>): Loaded<State> {
    const cached = cache.get(stream);
    if (cached && cached.version >= loaded.version) return cached;
    if (loaded.version > 0) cache.set(stream, loaded);
    return loaded;
  }

  async function attempt(stream: string, command: Command<State>, signal: AbortSignal | undefined): Promise<Outcome<State>> {
    signal?.throwIfAborted();
    let loaded = cache.get(stream);
    // What is remembered may be out of date. That matters only to answers that append nothing: an append would conflict.
    let fresh = loaded === undefined;
    loaded ??= await refresh(stream);
    for (let tries = 0; tries < MAX_ATTEMPTS; ) {
      signal?.throwIfAborted();
      const known = loaded.requests.get(command.requestId);
      if (known) return replay(stream, command, known);
      let events: Event[] = [];
      let refusal: unknown;
      try {
        const decided = command.decide(loaded.state);
        if (decided.length > 0 && command.refusal) throw command.refusal;
        events = decided;
      } catch (error) {
        refusal = error;
      }
      if (events.length === 0 && !fresh) {
        loaded = await refresh(stream);
        fresh = true;
        continue;
      }
      const answered = await findAnswered(stream, command, loaded);
      if (answered) return replay(stream, command, answered);
      if (refusal !== undefined) throw refusal;
      if (events.length === 0) return await leave(stream, loaded, command);
      try {
        return await record(stream, loaded, command, events, signal);
      } catch (error) {
        if (!(error instanceof StreamConflict)) throw error;
        tries++;
        const version = loaded.version;
        loaded = await refresh(stream);
        fresh = true;
        // What was faster may not have reached a majority yet, and is not to be seen before it has.
        if (loaded.version === version) await pause(2 * tries);
      }
    }
    throw new Refusal("CONFLICT", `others changed it at the same time, ${MAX_ATTEMPTS} times in a row; nothing was recorded`);
  }

  /** What the command led to before, if it changed nothing then: that is not in the log. */
  async function findAnswered(stream: string, { requestId, mayHaveBeenSo }: Command<State>, loaded: Loaded<State>) {
    if (requestId === "" || loaded.state === undefined || mayHaveBeenSo?.(loaded.state) === false) return undefined;
    return await unchanged.find(stream, requestId);
  }

  /** Answers a command that changes nothing, and remembers its request_id with what it found. */
  async function leave(stream: string, loaded: Loaded<State>, { requestId, method }: Command<State>): Promise<Outcome<State>> {
    if (requestId !== "" && loaded.version > 0)
      loaded.requests.set(requestId, await unchanged.note(stream, requestId, { version: loaded.version, method }));
    return { ...snapshotOf(loaded), before: loaded.state, appended: false };
  }

  async function record(
    stream: string,
    loaded: Loaded<State>,
    command: Command<State>,
    events: Event[],
    signal: AbortSignal | undefined,
  ): Promise<Outcome<State>> {
    // A stream's times never go back, whatever the clocks of the processes that write it.
    const at = new Date(Math.max(options.now().getTime(), loaded.at));
    const entry = createEntry({
      entryId: newEntryId(),
      stream,
      version: loaded.version + 1,
      recordedAt: timestampFromDate(at),
      actor: command.actor,
      door: command.door,
      method: command.method,
      requestId: command.requestId,
      correlationId: command.correlationId,
      causationId: command.causationId ?? "",
      events,
      ...(command.origin && { origin: command.origin }),
    });
    const encoded = encodeEntry(entry, at);
    const position = await appender.append(encoded, signal);
    const next = fold(loaded, { position, entry, body: encoded.body });
    remember(stream, next);
    return { ...snapshotOf(next), before: loaded.state, appended: true };
  }

  /** The first answer again: the thing as the command's own entry left it, or as the command found it if it changed nothing. */
  async function replay(stream: string, command: Command<State>, { version, method }: Answered): Promise<Outcome<State>> {
    const reused = (what: string) =>
      new Refusal("REQUEST_ID_REUSED", `request_id was used for ${what} before: choose a new one`, { method });
    if (method !== command.method) throw reused(method);
    const entries = (await reader.readStream(stream, 0)).filter(({ entry }) => entry.version <= version);
    const own = entries.at(-1);
    // A new primary may not know for a moment that a majority has what the old one said it had.
    if (own?.entry.version !== version) throw new Unavailable("the answer to this request_id cannot be read again yet: try again");
    const changed = own.entry.requestId === command.requestId;
    const before = (changed ? entries.slice(0, -1) : entries).reduce(fold, empty());
    const after = changed ? fold(before, own) : before;
    let decided: Event[];
    try {
      decided = command.decide(before.state);
    } catch (error) {
      // Whoever may not know of the thing is told nothing else; any other "no" was not the first answer.
      if (!(error instanceof Refusal) || error.reason === "ORDER_NOT_FOUND") throw error;
      throw reused("something else");
    }
    if (!areSameEvents(decided, changed ? own.entry.events : [])) throw reused("something else");
    return { ...snapshotOf(after), before: before.state, appended: false };
  }

  return {
    transact(id, command, signal) {
      if (underWay >= MAX_UNDER_WAY) {
        return Promise.reject(new Refusal("OVERLOADED", "too many commands are under way; nothing was recorded of this one"));
      }
      underWay++;
      const stream = category.streamOf(id);
      const before = busy.get(stream);
      const mine = before === undefined ? attempt(stream, command, signal) : before.then(() => attempt(stream, command, signal));
      const end = mine.then(
        () => undefined,
        () => undefined,
      );
      busy.set(stream, end);
      void end.then(() => {
        underWay--;
        if (busy.get(stream) === end) busy.delete(stream);
      });
      return mine;
    },
    async read(id) {
      const loaded = await refresh(category.streamOf(id));
      return loaded.version === 0 ? undefined : snapshotOf(loaded);
    },
  };
}

/** 16 bytes, 122 bits of them random. Node makes UUIDs in advance, so that this costs a tenth of asking for random bytes. */
function newEntryId(): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(randomUUID().replaceAll("-", ""), "hex"));
}

function snapshotOf<State>({ state, version, position }: Loaded<State>): Snapshot<State> {
  return { state: state as State, version, position };
}

/** The entries of a stream beyond a version; reads of many streams at the same time share a round trip. */
function batchReads(reader: LogReader): (wanted: { readonly stream: string; readonly after: number }) => Promise<RecordedEntry[]> {
  const read = batched<{ readonly stream: string; readonly after: number }, RecordedEntry[]>(async (reads) => {
    // Two readers of one stream may know different versions of it: read from the older one.
    const wanted = new Map<string, number>();
    for (const { stream, after } of reads) wanted.set(stream, Math.min(after, wanted.get(stream) ?? after));
    const found = await reader.readStreams(wanted);
    return reads.map(({ stream, after }) => found.get(stream)?.filter(({ entry }) => entry.version > after) ?? []);
  });
  return async (wanted) => {
    const entries = await read(wanted);
    checkVersions(entries, wanted.after);
    return entries;
  };
}
