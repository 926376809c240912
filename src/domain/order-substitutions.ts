import { create, equals } from "@bufbuild/protobuf";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { type ProposedSubstitution, ProposedSubstitutionSchema } from "../gen/ordertrail/events/v1/order_events_pb.js";
import { OrderStatus, SubstitutionStatus } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Actor } from "./caller.ts";
import type { OrderState, ProposeSubstitutions, ResolveSubstitutions, SubstitutionState } from "./order.ts";
import { happened } from "./order-event.ts";
import { checkRole, route } from "./order-route.ts";
import { Refusal } from "./refusal.ts";

/** How many proposals an order may have in its life, so that its state stays small. */
export const MAX_SUBSTITUTIONS = 200;

type Resolution = { readonly substitutionId: string; readonly status: SubstitutionStatus };

/** Decides ProposeSubstitutions, whole or not at all. Proposals that the order has already, word for word, are left out. */
export function propose(state: OrderState, command: ProposeSubstitutions, actor: Actor): Event[] {
  const request = { command: command.type, role: actor.role, from: state.status, to: OrderStatus.SUBSTITUTIONS_NEEDED };
  checkRole(request);
  refuseRepeated("substitutions", command.substitutions);
  const fresh = command.substitutions.filter((proposal) => !isKnown(state, proposal));
  if (fresh.length === 0) return [];
  route(request);
  const total = state.substitutions.length + fresh.length;
  if (total > MAX_SUBSTITUTIONS) {
    const detail = `an order has at most ${MAX_SUBSTITUTIONS} proposals; with these it would have ${total}`;
    throw new Refusal("VALIDATION_FAILED", `substitutions: ${detail}`, {}, [{ field: "substitutions", rule: "max_per_order", detail }]);
  }
  return [happened({ case: "substitutionsProposed", value: { substitutions: fresh } })];
}

/**
 * Decides ResolveSubstitutions, whole or not at all; picking goes on with the last answer. Possible in any status, for
 * open proposals exist in SUBSTITUTIONS_NEEDED only and the same answer again yields no events.
 */
export function resolve(state: OrderState, command: ResolveSubstitutions, actor: Actor): Event[] {
  checkRole({ command: command.type, role: actor.role, from: state.status, to: OrderStatus.PICKING_IN_PROGRESS });
  refuseRepeated("resolutions", command.resolutions);
  const answers = command.resolutions.flatMap(({ substitutionId, approved }): Resolution[] => {
    const status = approved ? SubstitutionStatus.APPROVED : SubstitutionStatus.REJECTED;
    return isAnswered(state, substitutionId, status) ? [] : [{ substitutionId, status }];
  });
  if (answers.length === 0) return [];
  const answered = happened({ case: "substitutionsResolved", value: { resolutions: answers } });
  const more = openProposals(state).length > answers.length;
  return more ? [answered] : [answered, happened({ case: "pickingResumed", value: {} })];
}

/** That the open proposals run out, because the order moves on without an answer; nothing when there are none. */
export function expireOpen(state: OrderState): Event[] {
  const resolutions = openProposals(state).map(({ substitutionId }) => ({ substitutionId, status: SubstitutionStatus.EXPIRED }));
  return resolutions.length > 0 ? [happened({ case: "substitutionsResolved", value: { resolutions } })] : [];
}

function openProposals(state: OrderState): readonly SubstitutionState[] {
  return state.substitutions.filter(({ status }) => status === SubstitutionStatus.PROPOSED);
}

function isKnown(state: OrderState, proposal: ProposedSubstitution): boolean {
  const { substitutionId } = proposal;
  const known = state.substitutions.find((substitution) => substitution.substitutionId === substitutionId);
  if (!known) return false;
  const { originalItem, replacementItem, reason } = known;
  const same = create(ProposedSubstitutionSchema, { substitutionId, originalItem, replacementItem, reason });
  if (equals(ProposedSubstitutionSchema, same, proposal)) return true;
  throw new Refusal("SUBSTITUTION_ALREADY_EXISTS", `the order has another proposal with the substitution_id ${substitutionId}`, {
    substitution_id: substitutionId,
  });
}

function isAnswered(state: OrderState, substitutionId: string, status: SubstitutionStatus): boolean {
  const known = state.substitutions.find((substitution) => substitution.substitutionId === substitutionId);
  if (!known) {
    throw new Refusal("SUBSTITUTION_NOT_FOUND", `the order has no proposal with the substitution_id ${substitutionId}`, {
      substitution_id: substitutionId,
    });
  }
  if (known.status === SubstitutionStatus.PROPOSED) return false;
  if (known.status === status) return true;
  const current = SubstitutionStatus[known.status];
  throw new Refusal("SUBSTITUTION_ALREADY_RESOLVED", `the proposal ${substitutionId} is ${current} already`, {
    substitution_id: substitutionId,
    status: String(current),
  });
}

function refuseRepeated(list: string, items: readonly { readonly substitutionId: string }[]): void {
  const seen = new Set<string>();
  const violations = items.flatMap(({ substitutionId }, index) => {
    if (!seen.has(substitutionId)) {
      seen.add(substitutionId);
      return [];
    }
    return [{ field: `${list}[${index}].substitution_id`, rule: "unique", detail: `${substitutionId} is there more than once` }];
  });
  if (violations.length === 0) return;
  throw new Refusal("VALIDATION_FAILED", violations.map(({ field, detail }) => `${field}: ${detail}`).join("; "), {}, violations);
}
