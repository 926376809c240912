import { isGsm7 } from "./sms-length.ts";

/** What stands for a letter or sign that GSM-7 lacks, where taking off its accent is not enough. */
const STAND_INS: Readonly<Record<string, string>> = {
  "“": '"',
  "”": '"',
  "„": '"',
  "«": '"',
  "»": '"',
  "‘": "'",
  "’": "'",
  "‚": "'",
  "´": "'",
  "`": "'",
  "‐": "-",
  "‑": "-",
  "–": "-",
  "—": "-",
  "−": "-",
  "•": "-",
  "·": "-",
  "…": "...",
  "×": "x",
  "→": "->",
  ª: "a",
  º: "o",
  œ: "oe",
  Œ: "OE",
  ł: "l",
  Ł: "L",
  đ: "d",
  Đ: "D",
  ı: "i",
};

const PICTURES = /[\p{Extended_Pictographic}\p{Regional_Indicator}\p{Emoji_Modifier}]|\u{fe0f}|\u{200d}|\u{20e3}/gu;

/**
 * The text in GSM-7, with stand-ins for what that lacks ("está" becomes "esta", a dash "-"), as one such letter would more than halve
 * what fits into a segment. A text that has other letters too, such as Hebrew ones, comes back as it was.
 */
export function toGsm7(text: string): string {
  if (isGsm7(text)) return text;
  let plain = "";
  for (const letter of text) plain += isGsm7(letter) ? letter : (STAND_INS[letter] ?? letter.normalize("NFD").replace(/\p{Mn}/gu, ""));
  return isGsm7(plain) ? plain : text;
}

/** The text without emoji: an SMS leaves them out, for the same reason. */
export function withoutPictures(text: string): string {
  return text.replace(PICTURES, "");
}
