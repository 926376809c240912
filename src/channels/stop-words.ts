const STOP: ReadonlySet<string> = new Set(["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "ALTO", "PARAR", "BAJA"]);
const START: ReadonlySet<string> = new Set(["START", "UNSTOP", "ALTA"]);

/** What somebody wants who wrote this: no more, or more again, when it is one of the words for it and nothing else. */
export function wishOf(text: string): "STOP" | "START" | "none" {
  const word = text
    .slice(0, 100)
    .replaceAll(/^[\s\p{P}]+|[\s\p{P}]+$/gu, "")
    .toUpperCase();
  return STOP.has(word) ? "STOP" : START.has(word) ? "START" : "none";
}
