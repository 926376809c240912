import { cleanLine, cleanUrl, shorten } from "./clean-value.ts";
import type { MessageItem, MessageSubstitution, MessageVariables } from "./message-variables.ts";
import { reasonInWords } from "./reason-words.ts";
import type { TemplateLocale } from "./template-files.ts";

/** How much of a message's variables fits. */
export type Bounds = {
  /** The longest name, in UTF-16 units, and the longest sentence, such as a reason. */
  readonly name: number;
  readonly sentence: number;
  /** The longest address; a longer one is left out, as half of one leads nowhere. */
  readonly url: number;
  /** How many entries of a list are shown: none where the texts have no lists. */
  readonly entries: number;
  readonly ellipsis: "…" | "...";
};

/** What a template looks its variables up in. `undefined` is what it should have and has not. */
export type TemplateView = Readonly<Record<string, unknown>>;

/** As long as one can be. */
const LONGEST_ORDER_ID = 64;

/**
 * A message's variables as the templates see them: each one line, within its bounds, without what would steer a terminal or a mail
 * header; and beside them what a logic-less template cannot find out, such as whether a list has entries.
 */
export function templateView(
  variables: MessageVariables,
  locale: TemplateLocale,
  bounds: Bounds,
  clean: (text: string) => string = (text) => text,
): TemplateView {
  const text = (value: string | undefined, longest: number) =>
    value === undefined ? undefined : shorten(cleanLine(clean(value)), longest, bounds.ellipsis);
  const name = (value: string | undefined) => text(value, bounds.name);
  // The templates end the sentence themselves.
  const sentence = (value: string | undefined) => text(value?.replace(/[\s.]+$/u, ""), bounds.sentence);
  const url = (value: string | undefined) => {
    const cleaned = value === undefined ? undefined : cleanUrl(value);
    return cleaned && cleaned.length > bounds.url ? "" : cleaned;
  };
  const { items, substitutions, item_count } = variables;
  return {
    order_id: text(variables.order_id, LONGEST_ORDER_ID),
    status: name(variables.status),
    customer_first_name: name(variables.customer_first_name),
    store_name: name(variables.store_name),
    driver_first_name: name(variables.driver_first_name),
    vehicle: name(variables.vehicle),
    eta: name(variables.eta),
    due_at: name(variables.due_at),
    reason: sentence(variables.reason === undefined ? undefined : reasonInWords(variables.reason, locale)),
    tracking_url: url(variables.tracking_url),
    unsubscribe_url: url(variables.unsubscribe_url),
    item_count,
    one_item: item_count === 1,
    ...listed("items", items, bounds, (item: MessageItem) => ({ name: sentence(item.name), quantity: name(item.quantity) })),
    ...listed("substitutions", substitutions, bounds, (substitution: MessageSubstitution) => ({
      original: sentence(substitution.original),
      replacement: sentence(substitution.replacement),
      price: name(substitution.price),
      reason: sentence(substitution.reason),
      answer: name(substitution.answer),
      is_approved: isApproved(substitution),
      is_declined: isDeclined(substitution),
      is_open: !isApproved(substitution) && !isDeclined(substitution),
    })),
    substitution_count: substitutions?.length,
    one_substitution: substitutions?.length === 1,
    approved_count: substitutions?.filter(isApproved).length,
    declined_count: substitutions?.filter(isDeclined).length,
  };
}

/** A list, whether it has entries, and how many more there are than a message shows. */
function listed<Entry>(
  list: string,
  entries: readonly Entry[] | undefined,
  bounds: Bounds,
  view: (entry: Entry) => TemplateView,
): TemplateView {
  return {
    [list]: entries?.slice(0, bounds.entries).map(view),
    [`has_${list}`]: entries && entries.length > 0,
    [`more_${list}`]: entries && Math.max(0, entries.length - bounds.entries),
  };
}

function isApproved({ answer }: MessageSubstitution): boolean {
  return answer?.toUpperCase() === "APPROVED";
}

/** A substitution that nobody has answered in time is refunded like one that was declined. */
function isDeclined({ answer }: MessageSubstitution): boolean {
  return answer !== undefined && ["REJECTED", "EXPIRED"].includes(answer.toUpperCase());
}
