// Asks for the same page again every few seconds and shows its <main>: all of it is made by the router.
(function () {
  "use strict";
  var busy = false;
  setInterval(function () {
    if (busy || document.hidden) { return; }
    busy = true;
    fetch(location.href, { cache: "no-store" }).then(function (answer) {
      if (!answer.ok) { throw new Error(answer.status); }
      return answer.text();
    }).then(function (text) {
      var fresh = new DOMParser().parseFromString(text, "text/html").querySelector("main");
      document.querySelector("main").replaceWith(fresh);
      document.body.classList.remove("lost");
    }).catch(function () {
      document.body.classList.add("lost");
    }).then(function () { busy = false; });
  }, 5000);
}());
