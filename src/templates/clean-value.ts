/** What ends or steers a line: control characters, line and paragraph separators, and what turns the direction of writing. */
const STEERING = /[\p{Cc}\u{2028}\u{2029}]/gu;
const DIRECTIONS = /[\u{200e}\u{200f}\u{061c}\u{202a}-\u{202e}\u{2066}-\u{2069}]/gu;
const LONGEST_URL = 2000;

const graphemes = new Intl.Segmenter();

/** A value as one line: no line breaks, tabs or other control characters, no run of spaces, nothing that turns the direction of writing. */
export function cleanLine(value: string): string {
  return value.toWellFormed().replace(DIRECTIONS, "").replace(STEERING, " ").replace(/\s+/gu, " ").trim();
}

/** At most `longest` UTF-16 units, with the ellipsis where something was left out. What is seen as one letter is not split. */
export function shorten(text: string, longest: number, ellipsis: "…" | "..."): string {
  if (text.length <= longest) return text;
  const room = longest - ellipsis.length;
  const cut = graphemes.segment(text.slice(0, longest + 1)).containing(room)?.index ?? 0;
  return text.slice(0, cut).trimEnd() + ellipsis;
}

/** An address of the web in ASCII; empty for all else, such as `javascript:`. */
export function cleanUrl(value: string): string {
  if (value.length > LONGEST_URL) return "";
  const url = URL.parse(value);
  if (url?.protocol !== "https:" && url?.protocol !== "http:") return "";
  // A grave accent is the one letter of an address that GSM-7 lacks.
  return url.href.replaceAll("`", "%60");
}
