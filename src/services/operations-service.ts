import { hostname } from "node:os";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Denials } from "../access/denials.ts";
import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { decideStore, type StoreState } from "../domain/store.ts";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { OperationsService } from "../gen/ordertrail/v1/operations_service_pb.js";
import type { LogReader } from "../log/reader.ts";
import type { Transactor } from "../log/transact.ts";
import type { RotationProgress } from "../privacy/key-rotation.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { Projector } from "../projections/projector.ts";
import type { ServiceHandlers } from "./call.ts";
import { recordedOrigin } from "./origin.ts";
import { checkStore, presentStore, profileOf } from "./present-store.ts";

/** OperationsService: shows and steers the projections, shows what was denied, has keys rotated, and keeps what is known of stores. */
export function createOperationsService({
  projector,
  reader,
  denials,
  rotateKeys,
  stores,
  keys,
  webhookSecret,
}: {
  readonly projector: Projector;
  readonly reader: LogReader;
  readonly denials: Pick<Denials, "counts">;
  readonly rotateKeys: (signal: AbortSignal) => AsyncIterable<RotationProgress>;
  readonly stores: Transactor<StoreState>;
  readonly keys: PersonalKeys;
  /** What signs the calls to a store's own system. */
  readonly webhookSecret: (storeId: string) => Promise<string>;
}): ServiceHandlers<typeof OperationsService> {
  function known(name: string): string {
    if (projector.names.includes(name)) return name;
    throw new Refusal("PROJECTION_NOT_FOUND", `there is no projection ${name}; there are ${projector.names.join(", ")}`, { name });
  }

  function comparable(name: string): string {
    if (projector.comparable.includes(known(name))) return name;
    throw new Refusal("PROJECTION_NOT_FOUND", `${name} is not compared by document: AuditService.VerifyLog verifies it`, { name });
  }

  /** Auditors see how things stand, and no secrets. */
  const secretFor = async ({ role }: Caller, { profile }: StoreState) =>
    role === Role.AUDITOR || !profile?.webhookUrl ? "" : await webhookSecret(profile.storeId);

  return {
    async listProjections() {
      const [head, states] = await Promise.all([reader.head(), projector.states()]);
      return {
        logPosition: BigInt(head),
        projections: states.map(({ name, position, runner, progressedAt, rebuilding, lastError }) => ({
          name,
          position: BigInt(position),
          behind: BigInt(Math.max(0, head - position)),
          runner,
          rebuilding,
          lastError,
          ...(progressedAt && { progressedAt: timestampFromDate(progressedAt) }),
        })),
      };
    },

    async *rebuildProjection({ name }, call) {
      for await (const { position, target, done } of projector.rebuild(known(name), call.signal)) {
        yield { position: BigInt(position), target: BigInt(target), done };
      }
    },

    async *verifyProjection({ name }, call) {
      for await (const { checked, different, difference, done } of projector.verify(comparable(name), call.signal)) {
        yield { checked: BigInt(checked), different: BigInt(different), done, ...(difference && { difference }) };
      }
    },

    async listDenials() {
      return {
        process: `${hostname()}:${process.pid}`,
        denials: denials.counts().map(({ count, limited, ...what }) => ({ ...what, count: BigInt(count), limited: BigInt(limited) })),
      };
    },

    async getStore({ storeId }, call) {
      checkStore(call.caller, storeId);
      const store = await stores.read(storeId);
      if (!store?.state.profile)
        throw new Refusal("STORE_NOT_FOUND", `store ${storeId} was never set: PutStore sets it`, { store_id: storeId });
      return { store: presentStore(store, await secretFor(call.caller, store.state)) };
    },

    async putStore(request, call) {
      const { caller, door, traceId, signal } = call;
      checkStore(caller, request.storeId);
      const outcome = await stores.transact(
        request.storeId,
        {
          method: "ordertrail.v1.OperationsService/PutStore",
          requestId: request.requestId,
          correlationId: traceId,
          actor: { role: caller.role, subject: caller.subject },
          door,
          origin: await recordedOrigin(call, request.storeId, keys),
          decide: (state) => decideStore(state, profileOf(request)),
        },
        signal,
      );
      if (outcome.appended) call.log({ store_id: request.storeId, position: outcome.position, version: outcome.version }, "store set");
      return { store: presentStore(outcome, await secretFor(caller, outcome.state)) };
    },

    async *rotateKeys(_, call) {
      for await (const { masterKeyId, rewrapped, left, done } of rotateKeys(call.signal)) {
        if (done) call.log({ master_key_id: masterKeyId, rewrapped, left }, "personal keys were wrapped anew");
        yield {
          masterKeyId,
          rewrapped: BigInt(rewrapped),
          left: left.map(({ masterKeyId: older, keys }) => ({ masterKeyId: older, personalKeys: BigInt(keys) })),
          done,
        };
      }
    },
  };
}
