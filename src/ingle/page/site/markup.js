// Draws HTML of an answer. The server lets nothing active out; here, what is not known to be harmless goes all the same.

const TAGS = new Set(
  "A B BLOCKQUOTE BR BUTTON CODE DEL DIV EM FIGCAPTION FIGURE H1 H2 H3 H4 H5 H6 HR I LI OL P PRE S SPAN STRONG TABLE TBODY TD TH THEAD TR UL".split(" "),
);
const ATTRIBUTES = new Set(["class", "data-copy", "href", "rel", "start", "tabindex", "title", "type"]);

export function fill(box, html) {
  const parsed = new DOMParser().parseFromString(html, "text/html"); // which runs and loads nothing
  for (const one of [...parsed.body.querySelectorAll("*")]) {
    if (!TAGS.has(one.tagName)) one.remove();
    for (const { name } of [...one.attributes]) if (!ATTRIBUTES.has(name) && name !== "style") one.removeAttribute(name);
    if (one.style.textAlign) one.align = one.style.textAlign; // a column's; styles of their own are not let in
    one.removeAttribute("style");
    if (one.tagName !== "A") continue;
    if (!/^(https?|mailto):/i.test(one.getAttribute("href") ?? "")) one.removeAttribute("href");
    Object.assign(one, { target: "_blank", rel: "noopener noreferrer" });
  }
  box.replaceChildren(...parsed.body.childNodes);
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Only pages of this machine, or with TLS, have a clipboard of their own.
    const box = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
}

// A button of a block of code.
export function copyCode({ target }) {
  const button = target.closest("button[data-copy]");
  if (!button) return;
  copy(button.closest("figure").querySelector("code").textContent);
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}
