/** How a text goes out by SMS, and in how many parts, each of which is paid for. */
export type SmsLength = { readonly encoding: "GSM-7" | "UCS-2"; readonly segments: number };

/** GSM 03.38: the letters that take one of 160 places, but for the escape itself. */
const BASIC =
  "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
/** Its extension: letters behind an escape, which take two places. */
const EXTENSION = "\f^{}\\[~]|€";

const SEPTETS: ReadonlyMap<string, number> = new Map([
  ...[...BASIC].map((letter) => [letter, 1] as const),
  ...[...EXTENSION].map((letter) => [letter, 2] as const),
]);

const GSM_7 = { alone: 160, part: 153 };
const UCS_2 = { alone: 70, part: 67 };

/** Whether the text can go out in the 7-bit alphabet. */
export function isGsm7(text: string): boolean {
  for (const letter of text) if (!SEPTETS.has(letter)) return false;
  return true;
}

/**
 * The encoding that the text needs and the number of its segments: 160 septets or 70 UTF-16 units alone, 153 or 67 when there are more.
 * Neither an escaped letter nor a surrogate pair is split between two segments. An empty text is one segment.
 */
export function measureSms(text: string): SmsLength {
  return isGsm7(text)
    ? { encoding: "GSM-7", segments: countSegments(text, (letter) => SEPTETS.get(letter) ?? 1, GSM_7) }
    : { encoding: "UCS-2", segments: countSegments(text, (letter) => letter.length, UCS_2) };
}

function countSegments(text: string, sizeOf: (letter: string) => number, size: { readonly alone: number; readonly part: number }): number {
  let total = 0;
  let segments = 1;
  let used = 0;
  for (const letter of text) {
    const letterSize = sizeOf(letter);
    total += letterSize;
    if (used + letterSize > size.part) {
      segments += 1;
      used = 0;
    }
    used += letterSize;
  }
  return total <= size.alone ? 1 : segments;
}
