import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { Refusal } from "../domain/refusal.ts";
import { AppendRequestSchema, AppendResponseSchema, AppendResult } from "../gen/ordertrail/internal/v1/append_pb.js";
import { type Appender, StreamConflict } from "./appender.ts";
import type { ForwardOutcome } from "./forwarding.ts";
import { type EncodedEntry, encodedFrom } from "./log-entry.ts";

/** The request that has entries appended. */
export function encodeAppendRequest(entries: readonly EncodedEntry[], known: number): Uint8Array {
  const bodies = entries.map(({ body }) => body as Uint8Array<ArrayBuffer>);
  return toBinary(AppendRequestSchema, create(AppendRequestSchema, { bodies, knownPosition: BigInt(known) }));
}

/** What an answer says of each of `count` entries. Bytes that are no answer say nothing. */
export function decodeAppendResponse(bytes: Uint8Array, count: number): readonly ForwardOutcome[] {
  try {
    const { outcomes } = fromBinary(AppendResponseSchema, bytes);
    return Array.from({ length: count }, (_, index) => {
      const outcome = outcomes[index];
      switch (outcome?.result) {
        case AppendResult.RECORDED:
          return { position: Number(outcome.position) };
        case AppendResult.CONFLICT:
          return "conflict";
        case AppendResult.OVERLOADED:
          return "overloaded";
        default:
          return undefined;
      }
    });
  } catch {
    return Array.from({ length: count }, () => undefined);
  }
}

/** Appends what another process asks for, and answers what became of it. Throws when the bytes are no request. */
export async function answerAppendRequest(appender: Pick<Appender, "append" | "heardOf">, bytes: Uint8Array): Promise<Uint8Array> {
  const { bodies, knownPosition } = fromBinary(AppendRequestSchema, bytes);
  const entries = bodies.map(encodedFrom);
  appender.heardOf(Number(knownPosition));
  const outcomes = await Promise.all(
    entries.map((entry) =>
      appender.append(entry).then(
        (position) => ({ result: AppendResult.RECORDED, position: BigInt(position) }),
        (error: unknown) => ({ result: resultOf(error) }),
      ),
    ),
  );
  return toBinary(AppendResponseSchema, create(AppendResponseSchema, { outcomes }));
}

function resultOf(error: unknown): AppendResult {
  if (error instanceof StreamConflict) return AppendResult.CONFLICT;
  if (error instanceof Refusal && error.reason === "OVERLOADED") return AppendResult.OVERLOADED;
  return AppendResult.UNSPECIFIED;
}
