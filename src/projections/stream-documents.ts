import { LRUCache } from "lru-cache";
import type { Collection, Db, Document, IndexDescription } from "mongodb";
import type { RecordedEntry } from "../log/log-entry.ts";
import type { LogReader } from "../log/reader.ts";
import type { Projection, ProjectionWriter } from "./projection.ts";
import { writeDocuments } from "./write-documents.ts";

/** A read model each of whose documents is made of one stream. */
export type StreamDocuments<State> = {
  readonly name: string;
  readonly revision: number;
  /** The field that identifies a document. */
  readonly key: string;
  readonly indexes: readonly IndexDescription[];
  readonly restMs: number;
  /** What the streams that matter begin with. */
  readonly prefix: string;
  /** The state after an entry; undefined before the first. */
  fold(state: State | undefined, recorded: RecordedEntry): State;
  /** What is to stand in the collection. Each document's `version` is that of the last entry that changed it. */
  documents(state: State): readonly VersionedDocument[];
  /** The stream that a key's document is made of; undefined when there is none. */
  streamOf(key: string): Promise<string | undefined>;
};

export type VersionedDocument = Document & { readonly version: number };

type Known<State> = { readonly version: number; readonly state: State | undefined };

const REMEMBERED = 5000;

/** The projection that keeps these documents. What it knows of a stream it reads from the log: the documents themselves are never trusted. */
export function createStreamProjection<State>(db: Db, reader: LogReader, model: StreamDocuments<State>): Projection {
  const { name, key, revision, indexes, restMs } = model;
  const collection = (copy: string) =>
    db.collection<Document>(copy, { writeConcern: { w: "majority", journal: true }, readPreference: "primary" });
  return {
    ...{ name, collection: name, revision, key, indexes, restMs, foreignFields: [] },
    keyIndex: { key: { [key]: 1 }, unique: true },
    open: (copy) => openCopy(collection(copy), reader, model),
    carryOver: async () => undefined,
    async documentAt(wanted, version) {
      const stream = await model.streamOf(wanted);
      if (stream === undefined) return undefined;
      const entries = (await reader.readStream(stream, 0)).filter(({ entry }) => entry.version <= version);
      const state = entries.reduce<State | undefined>((before, recorded) => model.fold(before, recorded), undefined);
      const found = state && model.documents(state).find((document) => document[key] === wanted);
      return found?.version === version ? found : undefined;
    },
  };
}

function openCopy<State>(target: Collection<Document>, reader: LogReader, model: StreamDocuments<State>): ProjectionWriter {
  const { key, prefix } = model;
  const remembered = new LRUCache<string, Known<State>>({ max: REMEMBERED });

  /** What each stream was before its first entry of a batch. */
  async function before(firsts: ReadonlyMap<string, number>): Promise<Map<string, Known<State>>> {
    const found = new Map<string, Known<State>>();
    const unknown = new Map<string, number>();
    for (const [stream, first] of firsts) {
      const known = first === 1 ? { version: 0, state: undefined } : remembered.get(stream);
      if (known && known.version >= first - 1) found.set(stream, known);
      else unknown.set(stream, 0);
    }
    if (unknown.size === 0) return found;
    for (const [stream, entries] of await reader.readStreams(unknown)) {
      const earlier = entries.filter(({ entry }) => entry.version < (firsts.get(stream) ?? 0));
      const state = earlier.reduce<State | undefined>((folded, recorded) => model.fold(folded, recorded), undefined);
      found.set(stream, { version: earlier.at(-1)?.entry.version ?? 0, state });
    }
    return found;
  }

  return {
    async apply(entries) {
      const byStream = Map.groupBy(
        entries.filter(({ entry }) => entry.stream.startsWith(prefix)),
        ({ entry }) => entry.stream,
      );
      const known = await before(new Map(Array.from(byStream, ([stream, [first]]) => [stream, first?.entry.version ?? 1])));
      const updates = [];
      for (const [stream, ofStream] of byStream) {
        const { version, state: earlier } = known.get(stream) ?? { version: 0, state: undefined };
        const fresh = ofStream.filter(({ entry }) => entry.version > version);
        const state = fresh.reduce<State | undefined>((folded, recorded) => model.fold(folded, recorded), earlier);
        const last = fresh.at(-1)?.entry.version;
        if (state === undefined || last === undefined) continue;
        remembered.set(stream, { version: last, state });
        for (const document of model.documents(state)) {
          if (document.version <= version) continue;
          updates.push({ q: { [key]: document[key], version: { $lt: document.version } }, u: { $set: document }, upsert: true });
        }
      }
      await writeDocuments(target, updates);
    },
    flush: async () => undefined,
  };
}
