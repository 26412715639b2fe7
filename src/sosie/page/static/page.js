"use strict";
// Everything works without this file; it adds keys and a closer look.
(() => {
  const zoom = document.querySelector("dialog.zoom");
  const links = [...document.querySelectorAll("a[data-zoom]")];

  const look = () => {
    if (!zoom || !links.length) return;
    zoom.querySelector(".large").replaceChildren(...links.map((link) => {
      const box = document.createElement("button");
      const picture = document.createElement("img");
      picture.src = link.href;
      picture.alt = link.querySelector("img").alt;
      box.type = "button";
      box.title = "Twice the size";
      box.append(picture);
      box.addEventListener("click", (event) => {
        const at = { x: event.offsetX / box.clientWidth, y: event.offsetY / box.clientHeight };
        box.classList.toggle("twice");
        box.scrollTo(at.x * (box.scrollWidth - box.clientWidth), at.y * (box.scrollHeight - box.clientHeight));
      });
      return box;
    }));
    zoom.showModal();
  };
  for (const link of links) {
    link.addEventListener("click", (event) => { event.preventDefault(); look(); });
  }

  // Letters alone may be spoken or pressed by mistake, so keys can be switched off, for this browser.
  const keys = document.querySelector(".keys");
  // A browser that keeps nothing of a page's throws; keys are on there.
  const kept = (change) => { try { return change(localStorage); } catch { return null; } };
  const keyless = () => kept((store) => store.getItem("sosie.keys")) === "off";
  if (keys) {
    const tick = keys.querySelector("input");
    const show = () => { tick.checked = !keyless(); document.body.classList.toggle("keyless", keyless()); };
    tick.addEventListener("change", () => { kept((store) => store.setItem("sosie.keys", tick.checked ? "on" : "off")); show(); });
    show();
    keys.hidden = false;
  }

  document.addEventListener("keydown", (event) => {
    if (keyless()) return;
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || zoom?.open) return;
    if (event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const key = event.key.toLowerCase();
    if (key === "z") { event.preventDefault(); look(); return; }
    document.querySelector(`button[data-key="${CSS.escape(key)}"]`)?.click();
  });

  // Chromium heeds a form's disabled first button in text fields alone.
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("input[type=checkbox]")) event.preventDefault();
  });

  // One press, one judgement; a dialog closes as often as one likes.
  document.addEventListener("submit", (event) => {
    if (event.target.method === "dialog") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));
})();
