import { describe, expect, it } from "vitest";
import { isGsm7, measureSms } from "../../src/templates/sms-length.ts";
import { toGsm7, withoutPictures } from "../../src/templates/sms-letters.ts";

describe("the length of an SMS", () => {
  it.each([
    ["an empty text", "", "GSM-7", 1],
    ["160 septets", "a".repeat(160), "GSM-7", 1],
    ["161 septets", "a".repeat(161), "GSM-7", 2],
    ["two full segments", "a".repeat(306), "GSM-7", 2],
    ["one more than two full segments", "a".repeat(307), "GSM-7", 3],
    ["three full segments", "a".repeat(459), "GSM-7", 3],
    ["80 letters of the extension", "€".repeat(80), "GSM-7", 1],
    ["81 letters of the extension", "€".repeat(81), "GSM-7", 2],
    ["an escaped letter where a segment ends: it goes to the next", `${"a".repeat(152)}€${"a".repeat(151)}`, "GSM-7", 2],
    ["and what it pushes out", `${"a".repeat(152)}€${"a".repeat(152)}`, "GSM-7", 3],
    ["70 units", "á".repeat(70), "UCS-2", 1],
    ["71 units", "á".repeat(71), "UCS-2", 2],
    ["two full segments of units", "á".repeat(134), "UCS-2", 2],
    ["one more", "á".repeat(135), "UCS-2", 3],
    ["one letter outside GSM-7 among others", `${"a".repeat(69)}ú`, "UCS-2", 1],
    ["35 surrogate pairs", "😀".repeat(35), "UCS-2", 1],
    ["36 surrogate pairs", "😀".repeat(36), "UCS-2", 2],
    ["66 surrogate pairs: 33 in a segment, as none is split", "😀".repeat(66), "UCS-2", 2],
    ["67 surrogate pairs", "😀".repeat(67), "UCS-2", 3],
  ])("is told for %s", (_, text, encoding, segments) => {
    expect(measureSms(text)).toEqual({ encoding, segments });
  });

  it("knows which Spanish letters are in GSM-7", () => {
    for (const letter of "éñÑ¿¡üÜàèìòùÉ") expect(isGsm7(letter), letter).toBe(true);
    for (const letter of "áíóúÁÍÓÚç…’“–") expect(isGsm7(letter), letter).toBe(false);
  });

  it("knows all 127 letters of the alphabet and the ten of its extension", () => {
    const letters = Array.from({ length: 0x10000 }, (_, code) => String.fromCharCode(code)).filter(isGsm7);
    expect(letters).toHaveLength(137);
  });
});

describe("letters that GSM-7 lacks", () => {
  it.each([
    ["Mañana está aquí: ¿cómo?", "Mañana esta aqui: ¿como?"],
    ["“Zoë’s” – café… 2 × 3 → 6", `"Zoe's" - café... 2 x 3 -> 6`],
    ["Łódź, Dvořák, Škoda", "Lodz, Dvorak, Skoda"],
    ["already plain", "already plain"],
  ])("have stand-ins: %s", (text, plain) => {
    expect(toGsm7(text)).toBe(plain);
  });

  it("are left alone where no stand-in would do", () => {
    expect(toGsm7("está שלום")).toBe("está שלום");
  });

  it("are left out where they are pictures", () => {
    expect(withoutPictures("Ana👩‍👩‍👧🇪🇸👍🏽❤️1️⃣")).toBe("Ana1");
  });
});
